"""How many threads should a training run have, alone and beside other work?

    python experiments/speed/threads.py --out experiments/speed/threads.csv

Milliseconds of a training step (batch of 8 images) with 1, 2, … threads up to the number of cores: on an idle
machine, beside one other process that computes with a thread for each core, and beside two."""
import argparse, os, statistics, subprocess, sys, time
from pathlib import Path

import pandas as pd, torch

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))
from common import Step, random_batch, record, show
from segnb.core import fast_bf16
from segnb.fuse import fuse
from segnb.loss import SegLoss
from segnb.unet import EncoderUNet

busy = ("import torch\nx = torch.rand(8, 64, 96, 96)\nw = torch.rand(64, 64, 3, 3)\n"
        "while True: torch.nn.functional.conv2d(x, w)")


def seconds(step, limit=40.):
    "Median and longest of ten steps, or of those that fit into `limit` seconds"
    step()
    took, end = [], time.perf_counter()+limit
    while len(took) < 10 and time.perf_counter() < end:
        start = time.perf_counter()
        step()
        took.append(time.perf_counter()-start)
    return statistics.median(took), max(took)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, nargs=2, default=(128, 160))
    p.add_argument('--out')
    args = p.parse_args()
    x, y = random_batch(args.size, 8)
    net = fuse(EncoderUNet(11, 'tf_efficientnet_lite0', pretrained=False).freeze_stages(2))
    step = Step(net, x, y, SegLoss(weight=torch.ones(11)), fast_bf16('cpu'), True)
    cores, rows = len(os.sched_getaffinity(0)), []
    counts = sorted({1, *(2**k for k in range(1, 8) if 2**k <= cores), cores})
    for others in (0, 1, 2):
        running = [subprocess.Popen([sys.executable, '-c', busy]) for _ in range(others)]
        time.sleep(5*bool(others))
        try:
            for n in counts:
                torch.set_num_threads(n)
                median, longest = seconds(step)
                rows.append({'other processes': others, 'threads': n, 'ms a step': 1e3*median,
                             'longest': 1e3*longest})
        finally:
            for o in running: o.kill()
    df = pd.DataFrame(rows)
    show(df, 0)
    if args.out: record(df, args.out, index=False)


if __name__ == '__main__': main()
