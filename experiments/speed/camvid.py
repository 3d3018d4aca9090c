"""How many minutes of training until CamVid's validation frames reach a score, by which way?

    python experiments/speed/camvid.py CAMVID --out experiments/speed/camvid.csv --ways segnb 'SMP Unet' lite0
    python experiments/speed/camvid.py CAMVID --out experiments/speed/long.csv --epochs 60 --ways segnb

Each way is the recipe of `segnb train` with one thing changed. A run that was interrupted goes on: ways that
are in the file already are left out."""
import argparse, sys, time
from pathlib import Path

import pandas as pd, torch, torch.nn as nn
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import own_split, record, show
from peers import SMPUnet
from segnb.core import VOID
from segnb.dataloader import SegDataLoaders
from segnb.loss import SegLoss
from segnb.recipe import ENCODER, data_path, train_recipe
from segnb.unet import EncoderUNet


class Clock(Callback):
    "A row with seconds of training and scores at each validation"
    def __init__(self, rows, network): self.rows, self.network = rows, network
    def before_fit(self): self.start, self.scoring, self.began = time.perf_counter(), 0., None
    def before_validate(self): self.began = time.perf_counter()
    def after_validate(self):
        if self.began is None: return               # this epoch was not scored
        now = time.perf_counter()
        self.scoring, self.began = self.scoring + now-self.began, None
        cm, took = self.learn.metrics[0].cm, now-self.start
        self.rows.append({'network': self.network, 'epoch': self.epoch+1, 'minutes': took/60,
                          'minutes without scoring': (took-self.scoring)/60,
                          'pixel accuracy': float(cm.pixel_acc), 'mean IoU': float(cm.mean_iou)})


class FrozenStatistics(Callback):
    "The encoder's batch norms keep the statistics of ImageNet"
    def before_train(self):
        for m in self.learn.model.encoder.modules():
            if isinstance(m, nn.BatchNorm2d): m.eval()


class SmoothLoss(SegLoss):
    "`SegLoss` whose ground truth is to a tenth any class"
    def forward(self, logits, y):
        keep = (y != VOID).as_subclass(torch.Tensor)
        logp = logits.float().as_subclass(torch.Tensor).log_softmax(1)
        spread = -(logp.mean(1)*keep).sum()/keep.sum().clamp_min(1)
        return .9*super().forward(logits, y) + .1*spread


class Smooth(Callback):
    "Label smoothing"
    def before_fit(self): self.learn.loss_func = SmoothLoss(weight=self.learn.loss_func.weight)


class LateCrops(Callback):
    "Crops about a third longer each way, in multiples of 32, in the last quarter of the run"
    def before_epoch(self):
        if self.epoch != self.n_epoch*3//4: return
        aug = self.dls.train.augment
        aug.crop = tuple(round(s*4/3/32)*32 for s in aug.crop)


ways = {'segnb': {},
        'SMP Unet': dict(arch=SMPUnet),
        'nothing frozen': dict(arch=EncoderUNet),
        'statistics frozen': dict(cb=FrozenStatistics),
        'label smoothing': dict(cb=Smooth),
        'larger crops late': dict(cb=LateCrops),
        'lite0': dict(encoder='tf_efficientnet_lite0'),
        'lite2': dict(encoder='tf_efficientnet_lite2')}


def train(dls, rows, name, epochs, every, arch=None, cb=None, encoder=ENCODER):
    "Train one way, adding a row to `rows` at each validation"
    set_seed(1)
    net = encoder if arch is None else arch(len(dls.classes), encoder)
    cbs = [Clock(rows, name)] + ([cb()] if cb else [])
    train_recipe(dls, epochs, encoder=net, validate_every=every, bars=False, cbs=cbs)


def _todo(rows, names, epochs, out):
    "The ways that are not in the table yet; what is there must be of the same length"
    last = {r['network']: r['epoch'] for r in rows}
    other = [n for n in names if last.get(n, epochs) != epochs]
    if other: raise ValueError(f"{out} has {other[0]!r} with {last[other[0]]} epochs: choose another file")
    return [n for n in names if n not in last]


def measure(path, epochs=30, every=5, names=('segnb', 'SMP Unet'), size=None, out=None):
    "A row for each validation of each way"
    ds, split = own_split(path)
    rows = pd.read_csv(out).to_dict('records') if out and Path(out).exists() else []
    for name in _todo(rows, names, epochs, out):
        dls = SegDataLoaders.from_dataset(ds if size is None else ds.at_size(size), split)
        train(dls, rows, name, epochs, every, **ways[name])
        if out: record(pd.DataFrame(rows), out, more=True, float_format='%.4f', index=False, rows=name)
    return pd.DataFrame(rows)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='camvid', help='a folder with a split of its own')
    p.add_argument('--ways', nargs='+', default=['segnb', 'SMP Unet'], choices=list(ways), metavar='WAY',
                   help=', '.join(ways))
    p.add_argument('--epochs', type=int, default=30, help='of one cycle')
    p.add_argument('--every', type=int, default=5, help='epochs between validations')
    p.add_argument('--size', type=int, nargs=2, metavar=('H','W'), help='resize the frames')
    p.add_argument('--out', help='a CSV file, to which ways are added')
    args = p.parse_args()
    show(measure(data_path(args.data), args.epochs, args.every, args.ways, args.size, args.out))
