"""What does it cost to track a training run?

    python experiments/speed/tracked.py --out experiments/speed/tracked.csv

Whole training runs without validation, in turn: not tracked, tracked, tracked with histograms of all layers
every fifty batches, and once more not tracked, which shows how far two equal things differ here."""
import argparse, io, sys, time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from fastai.callback.core import Callback

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import compare, record, show
from segnb.dataloader import SegDataLoaders
from segnb.learner import seg_learner
from segnb.one_cycle import fit_one_cycle
from segnb.recipe import ValidateEvery, data_path
from segnb.track import Tracker, need_trackio


class Marks(Callback):
    "The time after each training batch"
    def before_fit(self): self.at = []
    def after_batch(self):
        if self.training: self.at.append(time.perf_counter())


def batches_per_second(dls, epochs, track=None):
    "Train, and say how fast"
    learn, marks = seg_learner(dls, metrics=[]), Marks()
    if track is not None: learn.add_cb(Tracker(**track))
    with redirect_stdout(io.StringIO()), learn.no_bar(), learn.no_logging():
        fit_one_cycle(learn, epochs, 1e-3, cbs=[marks, ValidateEvery(epochs+1)])
    if any(cb.failed for cb in learn.cbs if isinstance(cb, Tracker)):
        raise RuntimeError("the tracker failed: nothing to measure")
    at = marks.at[3:]                               # the first ones warm up
    return (len(at)-1)/(at[-1]-at[0])


def measure(dls, rounds=5, epochs=3):
    "Batches a second, and how many times as long a run takes as one that is not tracked"
    project = f'speed-{time.time():.0f}'
    ways = {'not tracked': None, 'tracked': dict(project=project),
            'with histograms': dict(project=project, hist_every=50), 'not tracked, again': None}
    try: df = compare({k: partial(batches_per_second, dls, epochs, t) for k, t in ways.items()}, rounds)
    finally:
        with redirect_stdout(io.StringIO()): need_trackio().delete_project(project, force=True)
    return df.rename(columns={'ratio': 'times as long'})


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='streets', help='a folder, or a name as for segnb train')
    p.add_argument('--crop', type=int, nargs=2, default=(128,160), metavar=('H','W'))
    p.add_argument('--epochs', type=int, default=3)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    need_trackio()
    df = measure(SegDataLoaders.from_path(data_path(args.data), args.crop), args.rounds, args.epochs)
    show(df)
    if args.out: record(df, args.out)
