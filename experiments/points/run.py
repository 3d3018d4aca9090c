"""Where in the image? Coordinates by regression, or a heat map?

    python experiments/points/run.py --out experiments/points/points.csv

The vanishing point of a drawn street (`segnb.samples.aimed_streets`), 120 training and 30 validation images of
64x96, each of another street. Contenders:

- `mean point`: the mean of the training points for every image;
- `pooled`: an encoder with ImageNet weights and fastai's head, which pools over all places; mean squared error;
- `coordinates`: a head that keeps the places of the last feature map;
- `coordinates that stay`: the images are augmented, and the points are not moved with them;
- `heat map`: a U-Net on the same encoder with one output, softmax over the pixels, cross-entropy with a small
  Gaussian around the point; the point is the mean place under the softmax.

All networks have the same number of epochs, two of them frozen. (`pooled` was run with one seed.) The seed
decides new weights, order and augmentation; the images are the same. Criterion, fixed beforehand: the mean distance in pixels on the validation images.
An interrupted run goes on."""
import argparse, sys, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np, pandas as pd, torch, torch.nn as nn, torch.nn.functional as F
from fastai.vision.all import (ColSplitter, ConvLayer, DataBlock, Flatten, ImageBlock, Learner, MSELossFlat,
    Normalize, PILImage, PointBlock, TransformBlock, add_head, aug_transforms, default_split, params)
from fastai.torch_core import set_seed

from common import LastMap, add_rows, arguments, differences, is_done, rows_of, spread
from segnb.encoders import encoder, input_stats
from segnb.one_cycle import fit_one_cycle
from segnb.samples import aimed_streets
from segnb.unet import EncoderUNet

ENCODER = 'tf_efficientnet_lite0'
H, W = 64, 96
torch.set_num_threads(1)


def grid(h, w):
    "x and y of the middle of each pixel, from -1 to 1 over the image"
    y, x = torch.meshgrid((torch.arange(h)+.5)*2/h-1, (torch.arange(w)+.5)*2/w-1, indexing='ij')
    return x, y


def blob(points, h, w, sigma=2.):
    "A Gaussian of `sigma` pixels around each point (B,2), which sums to 1"
    (x, y), p = grid(h, w), points.as_subclass(torch.Tensor).view(-1, 2, 1, 1)
    d = ((x-p[:,0])*w/2)**2+((y-p[:,1])*h/2)**2
    return F.softmax(-d.flatten(1)/(2*sigma**2), 1)


class HeatLoss:
    "Cross-entropy between the softmax over all pixels and a blob; decoded, the mean place under the softmax"
    def __call__(self, maps, points):
        return -(blob(points, *maps.shape[-2:])*F.log_softmax(maps.flatten(1), 1)).sum(1).mean()
    def decodes(self, maps):
        p, (x, y) = F.softmax(maps.flatten(1), 1), grid(*maps.shape[-2:])
        return torch.stack([(p*x.flatten()).sum(1), (p*y.flatten()).sum(1)], 1)
    def activation(self, maps): return maps


def distances(pred, points):
    "Pixels between predicted and true points, both from -1 to 1"
    d = torch.as_tensor(pred).as_subclass(torch.Tensor).view(-1,2)-points.as_subclass(torch.Tensor).view(-1,2)
    return (d*torch.tensor([W/2, H/2])).norm(dim=1)


AUGMENT = aug_transforms(max_rotate=10., max_zoom=1.2, max_warp=.1, max_lighting=.3)


class Data:
    "The images, read once, and their points"
    def __init__(self, n):
        folder = aimed_streets(n=n, size=(H,W))
        self.df = pd.read_csv(folder/'points.csv')
        self.images = {name: np.asarray(PILImage.create(folder/'images'/name)) for name in self.df.name}

    def dls(self, tfms, seed, moving=True, normal=True):
        norm = [Normalize.from_stats(*input_stats(ENCODER))] if normal else []
        point = lambda r: [[r.x, r.y]]
        stay = lambda r: torch.tensor([r.x*2/W-1, r.y*2/H-1], dtype=torch.float32)
        block = DataBlock(blocks=(ImageBlock, PointBlock if moving else TransformBlock),
            get_x=lambda r: self.images[r['name']], get_y=point if moving else stay,
            splitter=ColSplitter('is_valid'), batch_tfms=[*tfms, *norm])
        dls = block.dataloaders(self.df, bs=16, num_workers=0, device='cpu')
        dls.train.rng.seed(seed)
        return dls


def pooled(dls, seed):
    set_seed(seed)
    model = add_head(LastMap(encoder(ENCODER)), 320, 2, y_range=(-1.1, 1.1), ps=.1)
    return Learner(dls, model, loss_func=MSELossFlat(), splitter=default_split)


def coordinates(dls, seed):
    set_seed(seed)
    head = nn.Sequential(ConvLayer(320, 32, ks=1), Flatten(), nn.Linear(32*H*W//32**2, 2))
    model = nn.Sequential(LastMap(encoder(ENCODER)), head)
    return Learner(dls, model, loss_func=MSELossFlat(), splitter=default_split)


def heat_map(dls, seed):
    set_seed(seed)
    model = EncoderUNet(1, ENCODER)
    split = lambda m: [params(m.encoder), params(m.decoder)+params(m.head)]
    return Learner(dls, model, loss_func=HeatLoss(), splitter=split)


def train(learn, epochs, lr):
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        learn.freeze()
        fit_one_cycle(learn, 2, lr)
        learn.unfreeze()
        fit_one_cycle(learn, epochs-2, slice(lr/5, lr))
    return time.process_time()-start


def measure(out, seeds, epochs, n, models):
    data = Data(n)
    contenders = {'pooled': (AUGMENT, {}, pooled, 1e-3), 'coordinates': (AUGMENT, {}, coordinates, 2e-3),
                  'coordinates that stay': (AUGMENT, dict(moving=False), coordinates, 2e-3),
                  'heat map': (AUGMENT, dict(normal=False), heat_map, 5e-3)}
    each = out.with_name(f'{out.stem}_each.csv')
    def add(model, d, seconds, lr, seed):
        row = dict(data='aimed_streets', model=model, opt='adam' if lr else '', lr=lr, seed=seed,
            mean=float(d.mean()), median=float(d.median()), within_5=float((d < 5).float().mean()), seconds=seconds)
        add_rows([dict(model=model, seed=seed, image=i, pixels=float(v)) for i,v in enumerate(d)], each)
        add_rows([row], out)
        print(f"{model}, seed {seed}: {row['mean']:.1f} px, {seconds:.0f} s", flush=True)
    if not is_done(out, model='mean point'):
        p = torch.tensor(data.df[['x','y']].to_numpy())*2/torch.tensor([W, H])-1
        valid = torch.tensor(data.df.is_valid.to_numpy())
        add('mean point', distances(p[~valid].mean(0).expand(int(valid.sum()), 2), p[valid]), 0., 0., 0)
    for seed in seeds:
        for name, (tfms, kwargs, make, lr) in contenders.items():
            if name not in models or is_done(out, model=name, seed=seed): continue
            learn = make(data.dls(tfms, seed, **kwargs), seed)
            seconds = train(learn, epochs, lr)
            with learn.no_bar(), learn.no_logging(): out_, y = learn.get_preds()
            pred = learn.loss_func.decodes(out_) if name == 'heat map' else out_
            add(name, distances(pred, y), seconds, lr, seed)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=6, help='two of them frozen')
    p.add_argument('--n', type=int, default=150, help='images, one in five for validation')
    p.add_argument('--out', type=Path, required=True, help='a CSV file, to which runs are added')
    names = ['pooled', 'coordinates', 'coordinates that stay', 'heat map']
    p.add_argument('--models', nargs='+', default=names, choices=names)
    args = arguments(p)
    measure(args.out, args.seeds, args.epochs, args.n, args.models)
    df = rows_of(args.out)
    for s in ('mean', 'median', 'within_5', 'seconds'): print(s, spread(df, 'model', s).round(3), sep='\n')
    trained = df[~df.model.isin(['mean point', 'pooled'])]
    print(differences(trained, 'model', 'coordinates', ['mean']).round(3).to_string(index=False))
