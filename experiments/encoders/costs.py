"""What does a U-Net with each encoder cost: parameters, time of a step and of a prediction, memory?

    python experiments/encoders/costs.py --out experiments/encoders/costs.csv

With nothing else running; four minutes on two cores. A training step per image at 192x256 in batches of eight
with all weights learning, a prediction of one frame of 360x480, and the memory of two steps."""
import argparse, sys
from functools import partial
from pathlib import Path

import pandas as pd, torch

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))
from common import Step, in_turn, memory_of, random_batch, record, show
from segnb.core import autocast, fast_bf16
from segnb.fuse import fuse
from segnb.loss import SegLoss
from segnb.unet import EncoderUNet
from train import families


def step(name, size, bs):
    "The training step of a network with an encoder"
    model = fuse(EncoderUNet(11, name, pretrained=False))
    return Step(model, *random_batch(size, bs), SegLoss(), fast_bf16('cpu'), True)


def four_times(f):
    "The first call after another network finds nothing of its own in the caches"
    def again():
        for _ in range(4): f()
    return again


def memory(name, size, bs):
    "MB that building the network and two steps take"
    before = f"import costs; costs.step({name!r}, (64,64), 2)()"
    return memory_of(before, f"s = costs.step({name!r}, {tuple(size)}, {bs}); s(); s()", here.parent)


def measure(names, size=(192,256), frame=(360,480), bs=8, rounds=3):
    "A row for each encoder"
    x = torch.rand(1, 3, *frame).contiguous(memory_format=torch.channels_last)
    nets = {n: fuse(EncoderUNet(11, n, pretrained=False)).to(memory_format=torch.channels_last).eval()
            for n in names}
    def predict(net):
        with torch.inference_mode(), autocast('cpu', fast_bf16('cpu')): net(x).argmax(1)
    predict_ms = in_turn({n: four_times(partial(predict, net)) for n, net in nets.items()}, rounds, 4)
    step_ms = in_turn({n: four_times(step(n, size, bs)) for n in names}, rounds, 4*bs)
    millions = {n: sum(p.numel() for p in net.parameters())/1e6 for n, net in nets.items()}
    columns = dict(family={n: families.get(n, '') for n in names}, millions=millions, step_ms=step_ms,
                   predict_ms=predict_ms, mb={n: memory(n, size, bs) for n in names})
    return pd.DataFrame(columns).rename_axis('encoder')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--encoders', nargs='+', default=list(families), help='names in timm')
    p.add_argument('--size', type=int, nargs=2, default=(192,256), metavar=('H','W'), help='of a step')
    p.add_argument('--frame', type=int, nargs=2, default=(360,480), metavar=('H','W'), help='to predict')
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    df = measure(args.encoders, args.size, args.frame, args.bs, args.rounds)
    show(df, 1)
    if args.out: record(df, args.out)
