"""What does one constant for each optimiser cost, beside rules that read the curve of a range test?

    python experiments/learning_rates/constants.py

Computed from the tables of the first study, rates.csv and curves.csv, without training anything: 36 tasks
with two seeds. The *regret* of a learning rate in a task is the best mean IoU of the task's grid less the
mean IoU at that learning rate (between the points of the grid: interpolated in its logarithm), in points.

Contenders: the constants 0.01 for Adam and 0.1 for SGD; the same unless the smoothed loss of the range test is
lowest at a smaller learning rate, then that one (what `LRCurve.lr` is); four fifths of the fall (what it was
before); fastai's rules, with the constant where a curve gives no ground for one. The constants were chosen on
half of these tasks, and the second contender was looked at on all of them, so this table describes; it does
not prove."""
import sys
from pathlib import Path

import numpy as np, pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import record
from segnb.lr_finder import LRCurve, smoothed, usual_lr

here = Path(__file__).resolve().parent
key = ['data','model','stage','opt','seed']


def four_fifths(curve):
    "The learning rate at which four fifths of the fall of the loss are done"
    x, s = curve.used
    s = smoothed(curve.losses, .9)[curve.left:][:len(x)]
    low = int(np.argmin(s))
    top = int(np.argmax(s[:low+1]))
    level = s[top]-.8*(s[top]-s[low])
    return float(x[top+np.argmax(s[top:low+1] <= level)])


def regrets():
    "A row for each task and seed, a column for each contender"
    rates, curves = (pd.read_csv(here/f'{n}.csv') for n in ('rates','curves'))
    by_task, rows = dict(tuple(curves.groupby(key))), []
    for task, runs in rates.sort_values('lr').groupby(key):
        usual = usual_lr[task[3]]
        curve = LRCurve(by_task[task].lr, by_task[task].loss, usual=usual)
        chosen = {'constant': usual, 'curve.lr': curve.lr if curve.suggestions else usual,
                  'four fifths': four_fifths(curve) if curve.suggestions else usual,
                  **{f: curve.suggestions.get(f, usual) for f in ('valley','slide','minimum','steep')}}
        reached = {n: np.interp(np.log(lr), np.log(runs.lr), runs.mean_iou) for n, lr in chosen.items()}
        rows.append({**dict(zip(key, task)), **{n: 100*(runs.mean_iou.max()-v) for n, v in reached.items()}})
    return pd.DataFrame(rows)


if __name__ == '__main__':
    df = regrets()
    record(df, here/'constants.csv', float_format='%.3f', index=False)
    print(df.drop(columns=key).describe(percentiles=[.5,.9]).round(2).T.to_string())
