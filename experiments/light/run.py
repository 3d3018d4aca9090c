"""Trained by day: what is a network worth in fog and at night, and what brings some of it back?

    python experiments/light/run.py --seeds 1 2 3 --out experiments/light/light.csv

Networks learn from the drawn streets of the course (240 images of 96x128 in sun, under clouds, at dusk and in
mist; six epochs) and are judged on 60 other streets by day, and on the same ones in fog and at night. What
varies is how many stages of the encoder keep their ImageNet weights (2 as in the recipe, or all 5), and if
all images are brought to the same light (`standardize`). A row for each training run and kind of weather."""
import argparse, sys
from pathlib import Path

import torch
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import THIN, add_rows, arguments, is_done, rows_of, show
from on_streets import ENCODER, streets_loaders, train
from segnb.dataset import find_pairs
from segnb.learner import seg_learner
from segnb.metrics import ConfusionMatrix
from segnb.streets import streets

WEATHER = None, 'fog', 'night'


def other_streets(weather, n=60):
    "Images and masks of streets that are in no training set; equal but for the weather"
    ds, _ = find_pairs(streets(n_clips=n, n_frames=1, n_valid=0, seed=8, weather=weather))
    return [(ds.image(i), ds.mask(i)) for i in range(n)]


def trained(seed, frozen, standardize, epochs, lr):
    dls = streets_loaders(bs=8, standardize=standardize)
    set_seed(seed)
    dls.train.rng.seed(seed)
    learn = seg_learner(dls, frozen_stages=frozen)
    train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
    return learn.seg_model()


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3])
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--lr', type=float, default=1e-2)
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    tests = {w or 'day': other_streets(w) for w in WEATHER}
    for seed in args.seeds:
        for standardize in (False, True):
            for frozen in (2, 5):
                run = dict(data='streets', model=ENCODER, opt='adam', lr=args.lr,
                           epochs=args.epochs, seed=seed, frozen=frozen, standardize=standardize)
                if is_done(args.out, **run): continue
                model = trained(seed, frozen, standardize, args.epochs, args.lr)
                rows = []
                for weather, pairs in tests.items():
                    cm = ConfusionMatrix(classes=model.classes)
                    for im, mask in pairs: cm.add(torch.from_numpy(model.predict(im)), torch.from_numpy(mask))
                    thin = [cm.iou[model.classes.index(c)].item() for c in THIN]
                    rows.append(dict(run, weather=weather, images=len(pairs), mean_iou=cm.mean_iou,
                                     pixel_acc=cm.pixel_acc, thin_iou=sum(thin)/len(thin)))
                add_rows(rows, args.out)
    show(rows_of(args.out).groupby(['weather','standardize','frozen'], sort=False)
         [['mean_iou','thin_iou','pixel_acc']].agg(['mean','std']))
