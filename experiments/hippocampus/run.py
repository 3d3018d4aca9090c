"""What does the third dimension bring a 2D network? Five folds by volume, with 0, 1 or 3 neighbours a side.

    python experiments/hippocampus/run.py HIPPOCAMPUS --k 0 1 3 --out experiments/hippocampus/hippocampus.csv

HIPPOCAMPUS is the folder of the Medical Segmentation Decathlon's task 4 with `images/` and `labels/`. One model
is trained for each fold and `k`; the table gets a row for each volume and structure of the fold. An interrupted
run goes on: what is in the table is not trained again."""
import argparse, sys, time
from pathlib import Path

import pandas as pd
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, is_done
from segnb.dataloader import SegDataLoaders
from segnb.dataset import FoldSplitter
from segnb.learner import seg_learner
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
    dls = SegDataLoaders.from_dataset(ds, FoldSplitter(fold, a.folds), a.crop, a.bs, val_bs=64, device='cpu',
                                      max_rotate=a.rotate, flip=True)
    learn = seg_learner(dls, a.model, frozen_stages=a.frozen, precision=a.precision)
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
            for views,model in dict(none=m, flip=TTA(m, 'flip').seg_model()).items():
                table = scan_scores(model, learn.dls.valid_ds.ds).rename(columns=columns)
                add_rows(table.assign(**run, tta=views, seconds=trained, core_seconds=cpu), a.out)
                means = table.groupby('class').dice.mean().round(4).to_dict()
                print(f"k={k} fold {fold} tta {views}: {means}, {trained:.0f} s ({cpu:.0f} core seconds)", flush=True)
    return pd.read_csv(a.out)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', help='the folder of the data set')
    p.add_argument('--k', type=int, nargs='+', default=[0, 1, 3], help='neighbours on either side')
    p.add_argument('--axes', type=int, nargs='+', default=[0], help='0 axial, 1 coronal, 2 sagittal')
    p.add_argument('--folds', type=int, default=5)
    p.add_argument('--only', type=int, nargs='+', help='only these folds')
    p.add_argument('--model', default='tf_efficientnet_lite0', help='a timm encoder')
    p.add_argument('--size', type=int, nargs=2, default=[96, 64], metavar=('H','W'), help='of the slices')
    p.add_argument('--crop', type=int, nargs=2, default=[96, 64], metavar=('H','W'), help='of training crops')
    p.add_argument('--bs', type=int, default=16, help='slices a batch')
    p.add_argument('--epochs', type=int, default=12)
    p.add_argument('--lr', type=float, default=4e-3, help='peak, of decoder and head')
    p.add_argument('--rotate', type=float, default=10, help='degrees, at most')
    p.add_argument('--frozen', type=int, default=2, help='stages of the encoder that keep their weights')
    p.add_argument('--precision', default='auto', choices=['auto','bf16','fp32'])
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--out', required=True, help='a CSV file, to which rows are added')
    df = measure(p.parse_args())
    print(df.groupby(['k','tta','class']).dice.agg(['mean','std','count']).round(4).to_string())
