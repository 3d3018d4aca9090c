"""What does a training run come to at each of ten learning rates, and what does a range test say before it?

    python experiments/learning_rates/run.py FOLDER --seeds 2 --out experiments/learning_rates

FOLDER holds camvid/, camvid_tiny/, nuclei/ and hippocampus/, or those of them that are there; the drawn
street scenes are always there. It takes an hour and a half on two cores; an interrupted run goes on.

A *task* is a data set, a model, a stage of training and an optimiser. A unit of work is a task with a seed: a
range test, then a short training run at each learning rate of a grid, from the same weights, with the same
crops in the same order. Units run side by side in processes of one thread each. The results are rates.csv, a
row for each training run, and curves.csv, a row for each batch of each range test."""
import argparse, math, os, random, sys, tempfile, time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import fastai.callback.progress                     # gives learners `no_bar`
import numpy as np, pandas as pd, torch
from fastai.callback.core import Callback, CancelValidException
from fastai.optimizer import SGD, Adam
from fastai.torch_core import set_seed
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import record
from segnb.core import progress
from segnb.dataloader import SegDataLoaders
from segnb.dataset import ClipSplitter, FoldSplitter, find_pairs
from segnb.masks import Codes
from segnb.learner import seg_learner
from segnb.lr_finder import lr_find
from segnb.one_cycle import fit_one_cycle
from segnb.streets import streets
from segnb.unet import UNet

grid = [1e-5, *(float(f'{10**k:.2g}') for k in np.arange(-4, .25, .5))]


@dataclass(frozen=True)
class Task:
    "A training run whose best learning rate is looked for"
    data: str    # a key of `sets`
    model: str   # 'lite0': a pretrained encoder; 'unet': a U-Net from random weights
    stage: str   # 'frozen', 'unfrozen', 'second' (unfrozen after a frozen run), 'scratch'
    opt: str     # 'adam', or 'sgd' with momentum
    def __str__(self): return ' '.join(astuple(self))


kinds = [('lite0','frozen','adam'), ('lite0','unfrozen','adam'), ('lite0','second','adam'),
         ('lite0','unfrozen','sgd'), ('unet','scratch','adam'), ('unet','scratch','sgd')]
who = [f.name for f in fields(Task)]+['seed']


def few(split, n_train=160, n_valid=48):
    "A splitter that keeps an even choice of the images on each side"
    thin = lambda o, n: [o[int(i)] for i in np.linspace(0, len(o)-1, min(n, len(o)))]
    return lambda files: tuple(thin(list(o), n) for o, n in zip(split(files), (n_train, n_valid)))


def loaders(path, size, split=None):
    "Small loaders for a folder; its own split, or a fold"
    ds, found = find_pairs(path, size=size)
    split = few(split or found or FoldSplitter(0))
    return SegDataLoaders.from_dataset(ds, split, crop=(64, min(96, size[1])), bs=8, val_bs=16)


def one_class(dls, name):
    "Turn the masks of `dls` into the class `name` against all else, in place; void stays void"
    k = dls.classes.index(name)
    table = torch.arange(256, dtype=torch.uint8)
    table[:len(dls.classes)] = 0
    table[k] = 1
    dls.codes = Codes(['other', name])
    for frames in (dls.train_ds, dls.valid_ds):
        frames.y_row = table[frames.y_row.long()]
        frames.counts = np.stack([np.delete(frames.counts, k, 1).sum(1), frames.counts[:,k]], 1)
        frames.ds.codes = dls.codes
    return dls


def volume_slices(path, out, n=3):
    "`n` axial slices of each volume in images/ and labels/, around its middle, as images with masks"
    import nibabel as nib
    path, out = Path(path), Path(out)
    for d in ('images', 'labels'): (out/d).mkdir(parents=True, exist_ok=True)
    for f in sorted((path/'images').glob('*.nii.gz')):
        vol, lab = (np.asanyarray(nib.load(path/d/f.name).dataobj) for d in ('images', 'labels'))
        top = max(np.percentile(vol, 99.5), 1e-6)
        for z in vol.shape[2]//2 + np.arange(n)*4 - 2*(n-1):
            name = f"{f.name.split('.')[0]}_{z:03d}.png"
            grey = (vol[...,z]/top*255).clip(0, 255).astype(np.uint8)
            Image.fromarray(grey).save(out/'images'/name)
            Image.fromarray(lab[...,z].astype(np.uint8)).save(out/'labels'/name)
    return out


def hippocampus(path):
    "Slices of one brain stay on one side of the split"
    split = ClipSplitter(.2, clip=r'^\w+_\d+(?=_)', seed=1)
    with tempfile.TemporaryDirectory() as tmp: return loaders(volume_slices(path, tmp), (64,96), split)


sets = {'streets':     lambda root: loaders(streets(), (96,128)),
        'cars':        lambda root: one_class(loaders(streets(), (96,128)), 'Car'),
        'camvid':      lambda root: loaders(root/'camvid', (90,120)),
        'camvid_tiny': lambda root: loaders(root/'camvid_tiny', (96,128)),
        'nuclei':      lambda root: loaders(root/'nuclei', (96,96)),
        'hippocampus': lambda root: hippocampus(root/'hippocampus')}
drawn = ('streets', 'cars')


def available(root=None):
    "The data sets that can be loaded"
    return [d for d in sets if d in drawn or root is not None and (Path(root)/d).is_dir()]


class NoValidation(Callback):
    "Train only; the scores are taken once, at the end"
    order = -30
    def before_validate(self): raise CancelValidException


def prepare(task, dls, seed=0):
    "A learner for a task, trained up to the stage that the task is about"
    set_seed(seed)
    arch, opt = 'tf_efficientnet_lite0', dict(adam=Adam, sgd=partial(SGD, mom=.9))[task.opt]
    if task.model == 'unet':
        arch = UNet(3, len(dls.classes), width=16, pad=True, norm=True, dropout=0., stats=((.5,)*3, (.25,)*3))
    learn = seg_learner(dls, arch, opt_func=opt, metrics=[], cbs=NoValidation())
    if task.stage in ('frozen', 'second'): learn.freeze()
    if task.stage == 'second':
        with learn.no_bar(), learn.no_logging(): fit_one_cycle(learn, 2, 3e-3)
        learn.unfreeze()
    return learn


def train_at(learn, state, lr, steps=60, seed=0):
    "Train with `fit_one_cycle` from the weights `state`, at least so many steps in whole epochs, and score"
    frozen, start = learn.opt.frozen_idx if learn.opt else 0, time.perf_counter()
    learn.model.load_state_dict(state)
    learn.create_opt()
    learn.freeze_to(frozen)
    set_seed(seed)
    learn.dls.train.rng = random.Random(seed)
    epochs = math.ceil(steps/len(learn.dls.train))
    with learn.no_bar(), learn.no_logging(): fit_one_cycle(learn, epochs, lr)
    losses, cm = learn.recorder.losses, learn.confusion()
    return dict(lr=lr, mean_iou=cm.mean_iou, pixel_acc=cm.pixel_acc, loss_first=float(losses[0]),
                loss_last=float(losses[-1]), seconds=time.perf_counter()-start)


def run_unit(task, seed=0, root=None, steps=60, lrs=grid):
    "A row for each learning rate, and a row for each batch of the range test"
    learn = prepare(task, sets[task.data](None if root is None else Path(root)), seed)
    state = {k: v.detach().clone() for k, v in learn.model.state_dict().items()}
    unit = dict(asdict(task), seed=seed)
    with learn.no_bar(): curve = lr_find(learn)
    points = [dict(unit, lr=x, loss=y) for x, y in zip(curve.lrs, curve.losses)]
    return [dict(unit, **train_at(learn, state, lr, steps, seed)) for lr in lrs], points


def add(rows, file):
    "Add rows to a CSV file, with a header if it is new"
    new = not file.exists()
    pd.DataFrame(rows).to_csv(file, mode='a', header=new, index=False, float_format='%.5g')


def complete(out):
    "The units that are complete; curves of one that is not are taken out"
    if not (out/'rates.csv').exists(): return set()
    units = lambda df: df[who].itertuples(index=False, name=None)
    done, curves = set(units(pd.read_csv(out/'rates.csv'))), pd.read_csv(out/'curves.csv')
    kept = curves[[u in done for u in units(curves)]]
    kept.to_csv(out/'curves.csv', index=False, float_format='%.5g')
    return done


def one_thread(): torch.set_num_threads(1)


def measure(out, tasks, root=None, seeds=2, steps=60, lrs=grid, workers=None):
    "Train every task at every learning rate; the two tables"
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    done = complete(out)
    units = [(t, s) for s in range(seeds) for t in tasks if (*astuple(t), s) not in done]
    with ProcessPoolExecutor(workers or os.cpu_count(), get_context('spawn'), one_thread) as ex:
        jobs, names = {ex.submit(run_unit, t, s, root, steps, lrs): f'{t}, seed {s}' for t, s in units}, []
        try:
            for job in progress(as_completed(jobs), len(jobs)):
                rows, points = job.result()
                add(points, out/'curves.csv')
                add(rows, out/'rates.csv')
                names.append(jobs[job])
        finally:                                            # also of a run that is interrupted
            for f in ('rates.csv', 'curves.csv') if names else ():
                record(pd.read_csv(out/f), out/f, more=True, float_format='%.5g', index=False, rows=names)
    return [pd.read_csv(out/f) for f in ('rates.csv', 'curves.csv')]


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', nargs='?', help='of the data sets that are not drawn')
    p.add_argument('--sets', nargs='+', help='only these data sets')
    p.add_argument('--kinds', nargs='+', help="only these, e.g. 'lite0 frozen adam'")
    p.add_argument('--seeds', type=int, default=2, help='of each task')
    p.add_argument('--steps', type=int, default=60, help='batches of a training run, at least')
    p.add_argument('--lrs', type=float, nargs='+', default=grid, help='the grid')
    p.add_argument('--workers', type=int, help='processes; default: one for each core')
    p.add_argument('--out', required=True, help='folder for rates.csv and curves.csv')
    args = p.parse_args()
    if args.folder and not Path(args.folder).is_dir(): p.error(f'{args.folder}: no such folder')
    tasks = [Task(d, *k) for d in args.sets or available(args.folder) for k in kinds
             if args.kinds is None or ' '.join(k) in args.kinds]
    rates, _ = measure(args.out, tasks, args.folder, args.seeds, args.steps, args.lrs, args.workers)
    scores = rates.groupby([*who[:-1], 'lr'], sort=False).mean_iou.mean()
    print(scores.unstack('lr').round(3).to_string())
