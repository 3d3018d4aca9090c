"""What does the third dimension bring a 2D network? Five folds by volume, with 0, 1 or 3 neighbours a side.

    python experiments/hippocampus/run.py HIPPOCAMPUS --k 0 1 3 --out experiments/hippocampus/hippocampus.csv

HIPPOCAMPUS is the folder of the Medical Segmentation Decathlon's task 4 with `images/` and `labels/`. One model
is trained for each fold and `k`; the table gets a row for each volume and structure of the fold, once as the model
predicts it (`tta` none) and once as the mean over the volume and its mirror image (`flip`). An interrupted run
goes on: what is in the table is not trained again.

The settings were chosen on fold 0, where coronal slices alone did as well as the mean over the three axes, and
slices of 80x80 no better than 64x64."""
import argparse, sys, time
from pathlib import Path

import pandas as pd
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, is_done
from segnb.dataloader import SegDataLoaders
from segnb.dataset import FoldSplitter
from segnb.learner import seg_learner
from segnb.loss import SegLoss
from segnb.one_cycle import fit_one_cycle
from segnb.recipe import ValidateEvery
from segnb.scans import find_volumes
from segnb.tta import TTA
from segnb.volumes import scan_scores

names = ['background', 'anterior', 'posterior']
columns = dict(Dice='dice', **{'surface distance': 'surface_mm', 'Hausdorff 95': 'hausdorff95_mm'})


def train(ds, a, fold):
    "A learner trained on all folds but one"
    set_seed(a.seed)
    # left and right are mirror images; front and back, which sagittal slices have in their columns, are not
    dls = SegDataLoaders.from_dataset(ds, FoldSplitter(fold, a.folds), a.crop, a.bs, val_bs=64, device='cpu',
                                      zoom=(.8, 1.25), aspect=(.9, 1.11), max_rotate=a.rotate,
                                      flip=2 not in a.axes)
    learn = seg_learner(dls, a.model, SegLoss(dice=a.dice, every=1), frozen_stages=a.frozen,
                        precision=a.precision)
    with learn.no_bar(), learn.no_logging():
        fit_one_cycle(learn, a.epochs, slice(a.lr/3, a.lr), cbs=ValidateEvery(a.epochs))
    return learn


def measure(a):
    "Train and score what is not in the table yet"
    for k in a.k:
        ds, _ = find_volumes(a.data, codes=names, k=k, axes=a.axes, size=a.size)
        for fold in a.only or range(a.folds):
            run = dict(data=Path(a.data).name, model=a.model, opt='Adam', lr=a.lr, epochs=a.epochs, seed=a.seed,
                       fold=fold, k=k, frozen=a.frozen,
                       axes='axes '+'+'.join(map(str, a.axes)), size='x'.join(map(str, a.size)))
            if is_done(a.out, **run): continue
            start, cpu = time.time(), time.process_time()
            learn = train(ds, a, fold)
            trained, cpu, m = time.time()-start, time.process_time()-cpu, learn.seg_model()
            views = dict(none=m) | (dict(flip=TTA(m, 'flip').seg_model()) if 2 not in a.axes else {})
            rows = []
            for name,model in views.items():
                table = scan_scores(model, learn.dls.valid_ds.ds).rename(columns=columns)
                rows.append(table.assign(**run, tta=name, seconds=trained, core_seconds=cpu))
                means = table.groupby('class').dice.mean().round(4).to_dict()
                print(f"k={k} fold {fold} tta {name}: {means}, {trained:.0f} s ({cpu:.0f} core seconds)", flush=True)
            add_rows(pd.concat(rows), a.out)
    return pd.read_csv(a.out)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', help='the folder of the data set')
    p.add_argument('--k', type=int, nargs='+', default=[0, 1, 3], help='neighbours on either side')
    p.add_argument('--axes', type=int, nargs='+', default=[1], help='0 axial, 1 coronal, 2 sagittal')
    p.add_argument('--folds', type=int, default=5)
    p.add_argument('--only', type=int, nargs='+', help='only these folds')
    p.add_argument('--model', default='tf_efficientnet_lite0', help='a timm encoder')
    p.add_argument('--size', type=int, nargs=2, default=[64, 64], metavar=('H','W'), help='of the slices')
    p.add_argument('--crop', type=int, nargs=2, default=[64, 64], metavar=('H','W'), help='of training crops')
    p.add_argument('--bs', type=int, default=16, help='slices a batch')
    p.add_argument('--epochs', type=int, default=14)
    p.add_argument('--lr', type=float, default=4e-3, help='peak, of decoder and head')
    p.add_argument('--rotate', type=float, default=15, help='degrees, at most')
    p.add_argument('--dice', type=float, default=1, help='factor of the Dice loss, beside cross-entropy')
    p.add_argument('--frozen', type=int, default=2, help='stages of the encoder that keep their weights')
    p.add_argument('--precision', default='auto', choices=['auto','bf16','fp32'])
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--out', required=True, help='a CSV file, to which rows are added')
    df = measure(arguments(p, vary=('k', 'only')))
    print(df.groupby(['k','tta','class']).dice.agg(['mean','std','count']).round(4).to_string())
