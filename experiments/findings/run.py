"""How many nodules does a 2D network find in scans that it has not seen, and what does a classifier bring?

    python experiments/findings/run.py --seeds 1 2 3 --out experiments/findings/findings.csv

Chests are drawn. For each seed, a small U-Net learns to segment nodules from slices with `k` neighbours,
everything above a low probability becomes a candidate, and a classifier learns from the candidates of other
scans which are nodules: not of those that the segmentation was trained on, where it makes fewer mistakes. The
table has a row for each candidate in the scans of `--judge`, which are drawn with another seed and serve
nothing else: where it is, its mean probability by the segmentation, and the classifier's. `NAME_nodules.csv`
lists the nodules that are there. An interrupted run goes on: what is in the table is not trained again."""
import argparse, sys, time
from pathlib import Path

import pandas as pd, torch
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, is_done
from segnb.chests import chests
from segnb.dataloader import SegDataLoaders, image_weights
from segnb.findings import candidates, classify, cubes_of, froc, hits, sensitivity_at, train_classifier
from segnb.learner import seg_learner
from segnb.loss import SegLoss, class_weights
from segnb.model_file import load_model
from segnb.one_cycle import fit_one_cycle
from segnb.recipe import ValidateEvery
from segnb.scans import find_volumes
from segnb.unet import UNet


def train(path, k, a, seed):
    "A segmentation of lungs and nodules from slices with `k` neighbours on either side"
    set_seed(seed)
    ds, split = find_volumes(path, k=k, range=(-1000, 400))
    # Hounsfield units mean the same in each scan, so brightness is left alone
    dls = SegDataLoaders.from_dataset(ds, split, a.crop, a.bs, val_bs=32, device='cpu', balance=True, focus=['lung','nodule'],
                                      focus_share=1., zoom=(.9, 1.3), max_rotate=10, dihedral=True, max_lighting=0)
    counts = dls.train_ds.counts
    dls.train.rng.seed(seed)
    dls.train.weights = image_weights(counts[:,1:], a.share)   # so many of the slices have a nodule, however small
    net = UNet(2*k+1, 3, a.width, depth=2, pad=True, norm=True, dropout=0)
    # the weight stays in the predictions: what may be a nodule is to be seen
    learn = seg_learner(dls, net, SegLoss(weight=class_weights(counts, a.power), adjust=False, every=1), precision=a.precision)
    with learn.no_bar(), learn.no_logging(): fit_one_cycle(learn, a.epochs, a.lr, cbs=ValidateEvery(a.epochs))
    return learn


def trained_model(path, k, a, seed):
    "The model of a run, from `--models` where an interrupted run has left it"
    about = f'chests{a.n}-k{k}-e{a.epochs}-c{a.crop}-w{a.width}-lr{a.lr:g}-p{a.power:g}-s{a.share:g}-seed{seed}'
    file = a.models and Path(a.models)/f'{about}.safetensors'
    if file and file.exists(): return load_model(file)
    learn = train(path, k, a, seed)
    return load_model(learn.save_model(file)) if file else learn.seg_model()


def scans_of(path): return sorted((path/'images').iterdir())


def table(model, path, threshold):
    "Candidates of a folder of chests, their cubes, and the nodules"
    found, nodules = candidates(model, scans_of(path), 'nodule', threshold), pd.read_csv(path/'annotations.csv')
    return found, cubes_of(found, scans_of(path)), nodules


def measure(a):
    "Train and judge what is not in the table yet"
    path, other, judge = chests(n=a.n), chests(n=a.learn, seed=a.learn_seed), chests(n=a.judge, seed=a.judge_seed)
    pd.read_csv(judge/'annotations.csv').to_csv(a.out.replace('.csv', '_nodules.csv'), index=False)
    for k in a.k:
        for seed in a.seeds:
            run = dict(seed=seed, k=k, epochs=a.epochs, n=a.n, learn=a.learn, scans=a.judge, judge_seed=a.judge_seed)
            if is_done(a.out, **run): continue
            start = time.process_time()
            model = trained_model(path, k, a, seed)
            trained = time.process_time()-start
            found, cubes, nodules = table(model, other, a.threshold)
            net = train_classifier(cubes, hits(found, nodules, a.least) >= 0, a.classifier_epochs, seed=seed)
            found, cubes, nodules = table(model, judge, a.threshold)
            found['classified'] = classify(net, cubes)
            seconds = time.process_time()-start
            add_rows(found.assign(**run, core_seconds=seconds, train_seconds=trained), a.out)
            for score in ('probability', 'classified'):
                curve = froc(found, nodules, a.judge, score, a.least)
                print(f"k={k} seed {seed} {score}: {sensitivity_at(curve).round(3).to_dict()}, {seconds:.0f} core seconds",
                      flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--k', type=int, nargs='+', default=[3], help='neighbours on either side')
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3], help='of training')
    p.add_argument('--n', type=int, default=240, help='scans for the segmentation; each fifth is for validation')
    p.add_argument('--learn', type=int, default=240, help='scans for the classifier')
    p.add_argument('--learn-seed', type=int, default=43, help='that these are drawn with')
    p.add_argument('--judge', type=int, default=40, help='scans to judge by')
    p.add_argument('--judge-seed', type=int, default=2026, help='that these are drawn with')
    p.add_argument('--epochs', type=int, default=24)
    p.add_argument('--crop', type=int, default=32, help='of training crops, pixels')
    p.add_argument('--lr', type=float, default=1e-2, help='peak')
    p.add_argument('--bs', type=int, default=32, help='slices a batch')
    p.add_argument('--width', type=int, default=24, help="channels of the U-Net's first step")
    p.add_argument('--power', type=float, default=.8, help='of the class weights')
    p.add_argument('--share', type=float, default=.7, help='of the slices that hold a nodule')
    p.add_argument('--precision', default='auto', choices=['auto','bf16','fp32'])
    p.add_argument('--threshold', type=float, default=.1, help='probability of a candidate')
    p.add_argument('--least', type=float, default=2.25, help="mm that a nodule's radius counts as, at least")
    p.add_argument('--classifier-epochs', type=int, default=30)
    p.add_argument('--models', help='a folder to keep the trained segmentations in')
    p.add_argument('--out', required=True, help='a CSV file, to which rows are added')
    torch.set_num_threads(1)
    measure(arguments(p, vary=('seeds', 'k')))
