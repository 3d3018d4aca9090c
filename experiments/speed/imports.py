"""How many seconds does `import segnb.all` take, beside fastai's `vision.all` and torch alone?

    python experiments/speed/imports.py --out experiments/speed/import.csv

Each import runs in a process of its own."""
import argparse, subprocess, sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import in_turn, record, show


def measure(rounds=5):
    "Median seconds of each import, and how many times segnb's that is"
    run = lambda code: lambda: subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
    names = ('segnb.all', 'fastai.vision.all', 'torch')
    ms = in_turn({n: run(f'import {n}') for n in names}, rounds)
    df = pd.DataFrame({'seconds': {k: v/1e3 for k, v in ms.items()}})
    return df.assign(**{'times segnb': df.seconds/df.seconds['segnb.all']})


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    df = measure(args.rounds)
    show(df)
    if args.out: record(df, args.out)
