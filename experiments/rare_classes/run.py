"""Of the things that are said to help rare classes, which do, and what do they cost the other classes?

    python experiments/rare_classes/run.py CAMVID --out experiments/rare_classes/rare.csv

Each recipe trains the same network from the same start for as many steps on crops of the same size, seven
or eight minutes on two cores. Rare are the classes with the fewest pixels in the training frames; the
validation frames have no say in that. An interrupted run goes on: recipes that are in the table are not
trained again."""
import argparse, sys, time
from pathlib import Path

import numpy as np, pandas as pd
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import arguments, own_split, record
from segnb.dataloader import SegDataLoaders, default_crop
from segnb.dataset import pixel_counts
from segnb.learner import seg_learner
from segnb.loss import SegLoss, class_weights
from segnb.one_cycle import fit_one_cycle
from segnb.recipe import ValidateEvery, data_path


def rarest(counts, n=4):
    "The classes with the fewest pixels, of those that occur, rarest first"
    total = np.asarray(counts).sum(0)
    return [int(c) for c in np.argsort(total, kind='stable') if total[c] > 0][:n]


def recipes(counts, rare):
    "Name to `(arguments for the loaders, loss)`: one thing changed at a time, then several at once"
    plain = lambda: SegLoss(dice=0)
    weighted = lambda power: SegLoss(weight=class_weights(counts, power), dice=0, adjust=False)
    shipped = lambda: SegLoss(weight=class_weights(counts, .5))     # Dice and roots: as `segnb train`
    crops = dict(focus=rare)
    return {'plain': ({}, plain()),
            'weights': ({}, weighted(1)),
            'root weights': ({}, weighted(.5)),
            'adjusted root weights': ({}, SegLoss(weight=class_weights(counts, .5), dice=0)),
            'dice': ({}, SegLoss()),
            'sampling': (dict(balance=True), plain()),
            'crops': (crops, plain()),
            'weights and crops': (crops, weighted(1)),
            'shipped': ({}, shipped()),
            'shipped and crops': (crops, shipped()),
            'enlarged': (dict(crops, enlarge=1.5), shipped())}


def train(ds, split, recipe, epochs, seed, lr=4e-3):
    "A learner trained by a recipe, and the seconds that took, added up over the cores"
    set_seed(seed)
    loaders, loss = dict(recipe[0]), recipe[1]
    size, enlarge = ds.size or np.median(ds.file_sizes, 0), loaders.pop('enlarge', 1)
    if enlarge != 1: ds = ds.at_size([int(s*enlarge) for s in size])
    crop = default_crop(size)                           # the same for all, so that steps cost the same
    learn = seg_learner(SegDataLoaders.from_dataset(ds, split, crop, **loaders), loss_func=loss)
    start = time.process_time()                         # not what else runs on the machine
    with learn.no_bar(), learn.no_logging():
        fit_one_cycle(learn, epochs, slice(lr/3, lr), cbs=ValidateEvery(epochs))
    return learn, time.process_time()-start


def measure(path, out, names=None, epochs=20, seed=1, size=None):
    "A row for each recipe and class: accuracy, precision, IoU, Dice, pixels, core seconds"
    ds, split = own_split(path)
    if size: ds = ds.at_size(size)
    counts = pixel_counts(ds.subset(split(ds.images)[0]), len(ds.classes))
    known, out = recipes(counts, rarest(counts)), Path(out)
    df = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=['recipe'])
    for name in names or known:
        if name in set(df.recipe): continue
        learn, seconds = train(ds, split, known[name], epochs, seed)
        rows = learn.metrics[0].cm.table().reset_index().assign(recipe=name, **{'core seconds': seconds})
        df = pd.concat([df, rows], ignore_index=True) if len(df) else rows
        record(df, out, more=True, float_format='%.5g', index=False, rows=name, epochs=epochs, seed=seed)
        print(f"{name}: mean IoU {rows.IoU.iloc[-1]:.3f}, {seconds:.0f} core seconds", flush=True)
    return df


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='streets', help='a folder with a split of its own, or a name')
    p.add_argument('--recipes', nargs='+', help='only these, e.g. dice "root weights"')
    p.add_argument('--size', type=int, nargs=2, metavar=('H','W'), help='resize the frames')
    p.add_argument('--epochs', type=int, default=20, help='of each recipe')
    p.add_argument('--seed', type=int, default=1, help='the same for all')
    p.add_argument('--out', required=True, help='a CSV file, to which recipes are added')
    args = arguments(p, vary=('recipes',))
    df = measure(data_path(args.data), args.out, args.recipes, args.epochs, args.seed, args.size)
    print(df.pivot(index='class', columns='recipe', values='IoU').round(3).to_string())
