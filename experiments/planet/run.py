"""Many labels for one tile: what do augmentation and a larger size bring, and what is a threshold worth?

    python experiments/planet/run.py PLANET --out experiments/planet/planet.csv

`PLANET` is a folder with `labels.csv` (`image_name`, `tags` separated by spaces) and `train/NAME.jpg`. The
network is an encoder with ImageNet weights and fastai's head, its encoder frozen first. Contenders:

- `frequent`: the same labels for every tile, those with the highest F2 on the training tiles;
- `none 64`, `turns 64`, `turns and warp 64`: tiles at 64 pixels, without augmentation, with flips and quarter
  turns (and fastai's lighting, small rotation and zoom), and with perspective warp in addition; a frozen epoch
  and three with all layers;
- `turns 64, 128`: the weights of `turns 64`, trained on for two epochs at 128 pixels;
- `turns 128`: 128 pixels from the start, three epochs, which take about the same time (not run yet; of the
  contenders at 64 pixels only `turns` has all seeds).

The seed decides the split (a fifth for validation), new weights, order and augmentation, so an interval over
seeds includes the choice of the tiles. Criterion, fixed beforehand: F2, the mean over the tiles, at a threshold
that is chosen on the other half of the validation tiles (`f2_other`); `f2_same` is chosen on the tiles it is
measured on, `f2_fixed` at 0.2. Of Planet's tiles nothing is written but counts and losses: beside OUT.csv,
`NAME_labels.csv`, `NAME_tiles.csv` and `NAME_together.csv`. An interrupted run goes on."""
import argparse, sys, time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np, pandas as pd, torch
from fastai.vision.all import (DataBlock, ImageBlock, Learner, MultiCategoryBlock, Normalize,
    RandomSplitter, Resize, FBetaMulti, accuracy_multi, add_head, aug_transforms,
    default_split)
from fastai.torch_core import set_seed
from PIL import Image
from sklearn.metrics import fbeta_score

from common import LastMap, add_rows, arguments, differences, is_done, rows_of, spread
from segnb.encoders import encoder, input_stats
from segnb.lr_finder import lr_find
from segnb.one_cycle import fit_one_cycle
from segnb.threshold import PRCurves

ENCODER = 'tf_efficientnet_lite0'
torch.set_num_threads(1)


def f2(p, y, threshold):
    "Mean F2 over the tiles"
    return fbeta_score(y, p > threshold, beta=2, average='samples', zero_division=0)


THRESHOLDS = np.arange(.02, .6, .02)
def best_threshold(p, y): return max(THRESHOLDS, key=lambda t: f2(p, y, t))


def f2_scores(p, y, seed):
    "F2 with thresholds that were chosen in three ways"
    half = np.random.default_rng(seed).permutation(len(y)) < len(y)/2
    other = np.mean([f2(p[part], y[part], best_threshold(p[~part], y[~part])) for part in (half, ~half)])
    best = best_threshold(p, y)
    return dict(f2_other=other, f2_same=f2(p, y, best), f2_fixed=f2(p, y, .2), threshold=best,
                accuracy=((p > .5) == y).mean())


def most_frequent(y, valid_y):
    "The set of labels that is best on the training tiles if every tile gets it"
    order = np.argsort(-y.mean(0))
    sets = [np.isin(np.arange(y.shape[1]), order[:k]) for k in range(1, 8)]
    best = max(sets, key=lambda s: f2(np.tile(s, (len(y),1)), y, .5))
    return np.tile(best, (len(valid_y),1)).astype(float)


class Tiles:
    "The tiles of a folder, read once, at 128 pixels"
    def __init__(self, folder):
        self.df = pd.read_csv(folder/'labels.csv')
        self.images = {}
        for name in self.df.image_name:
            with Image.open(folder/'train'/f'{name}.jpg') as im:
                self.images[name] = np.asarray(im.convert('RGB').resize((128,128), Image.BILINEAR))
        self.vocab = sorted({t for tags in self.df.tags for t in tags.split()})

    def dls(self, size, tfms, seed, bs=32):
        block = DataBlock(blocks=(ImageBlock, MultiCategoryBlock(vocab=self.vocab)),
            get_x=lambda r: self.images[r.image_name], get_y=lambda r: r.tags.split(),
            splitter=RandomSplitter(.2, seed=seed), item_tfms=Resize(size),
            batch_tfms=[*tfms, Normalize.from_stats(*input_stats(ENCODER))])
        return block.dataloaders(self.df, bs=bs, num_workers=0, device='cpu')


AUGMENT = {'none': [], 'turns': aug_transforms(flip_vert=True, max_warp=0.),
           'turns and warp': aug_transforms(flip_vert=True, max_warp=.2)}


def learner(dls, seed):
    set_seed(seed)
    metrics = [partial(accuracy_multi, thresh=.2), FBetaMulti(2, thresh=.2, average='samples')]
    learn = Learner(dls, add_head(LastMap(encoder(ENCODER)), 320, dls.c), splitter=default_split, metrics=metrics)
    dls.train.rng.seed(seed)
    return learn


def train(learn, frozen, unfrozen, factor=1.):
    "Frozen, then unfrozen with a lower learning rate for the encoder. CPU seconds."
    start = time.process_time()
    with learn.no_bar(), learn.no_logging():
        learn.freeze()
        fit_one_cycle(learn, frozen, 1e-2*factor)
        learn.unfreeze()
        fit_one_cycle(learn, unfrozen, slice(1e-4*factor, 2e-3*factor))
    return time.process_time()-start


def probabilities(learn):
    with learn.no_bar(), learn.no_logging(): p, y = learn.get_preds()
    return p.numpy(), y.numpy().astype(bool)


def of_labels(p, y, vocab, run):
    "A row for each label: how often it is, and how well it is found. A tile is a mask of one pixel."
    curves = PRCurves(vocab)
    pixel = lambda a: torch.from_numpy(a)[:,:,None,None]
    curves.add(pixel(p), pixel(y), torch.ones(len(y), 1, 1, dtype=torch.bool))
    with np.errstate(invalid='ignore'): ap = curves.average_precision
    return [dict(run, label=l, tiles=int(n), AP=a) for l,n,a in zip(vocab, y.sum(0), ap)]


def of_tiles(p, y, run):
    "A row for each tile: its loss, and how many labels it has, are missed, and are wrong at 0.2"
    q = p.clip(1e-6, 1-1e-6)
    losses = -np.where(y, np.log(q), np.log(1-q)).mean(1)
    counts = (y.sum(1), (y & (p <= .2)).sum(1), (~y & (p > .2)).sum(1))
    return [dict(seed=run['seed'], loss=l, labels=a, missed=b, extra=c) for l,a,b,c in zip(losses, *counts)]


def measure(folder, out, seeds, epochs, models):
    tiles, data = Tiles(folder), folder.name
    beside = lambda name: out.with_name(f'{out.stem}_{name}.csv')
    y = np.array([[l in tags.split() for l in tiles.vocab] for tags in tiles.df.tags])
    if not beside('together').exists():
        together = pd.DataFrame(y.T.astype(int) @ y.astype(int), tiles.vocab, tiles.vocab)
        together.to_csv(beside('together'), index_label='label')
    for seed in seeds:
        run = lambda model, lr: dict(data=data, model=model, opt='adam', lr=lr, seed=seed)
        def add(model, p, y, seconds, lr=1e-2, **more):
            row = dict(run(model, lr), **f2_scores(p, y, seed), **more, seconds=seconds)
            if is_done(out, model=model, seed=seed): return             # trained again for what follows
            add_rows([row], out)
            print(f"{model}, seed {seed}: F2 {row['f2_other']:.3f}, {seconds:.0f} s", flush=True)
        if not is_done(out, model='frequent', seed=seed):
            valid = RandomSplitter(.2, seed=seed)(tiles.df)[1]
            train_y = np.delete(y, valid, 0)
            add('frequent', most_frequent(train_y, y[valid]), y[valid], 0., lr=0.)
        for name, tfms in AUGMENT.items():
            last = f'{name} 64, 128' if name == 'turns' else f'{name} 64'
            if f'{name} 64' not in models or is_done(out, model=last, seed=seed): continue
            learn = learner(tiles.dls(64, tfms, seed), seed)
            with learn.no_bar(): found = lr_find(learn).lr if (name, seed) == ('turns', 1) else None
            seconds = train(learn, 1, epochs)
            add(f'{name} 64', *probabilities(learn), seconds, found=found)
            if name != 'turns': continue
            learn.dls = tiles.dls(128, tfms, seed)
            seconds += train(learn, 1, 1, .5)
            p, valid_y = probabilities(learn)
            for what, rows in dict(labels=of_labels(p, valid_y, tiles.vocab, dict(seed=seed)),
                                   tiles=of_tiles(p, valid_y, dict(seed=seed))).items():
                if not is_done(beside(what), seed=seed): add_rows(rows, beside(what))
            add(last, p, valid_y, seconds)
        if 'turns 128' not in models or is_done(out, model='turns 128', seed=seed): continue
        learn = learner(tiles.dls(128, AUGMENT['turns'], seed), seed)
        seconds = train(learn, 1, 2)
        add('turns 128', *probabilities(learn), seconds)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3,4,5])
    p.add_argument('--epochs', type=int, default=3, help='unfrozen epochs at 64 pixels')
    p.add_argument('--out', type=Path, required=True, help='a CSV file, to which runs are added')
    names = [*(f'{a} 64' for a in AUGMENT), 'turns 128']
    p.add_argument('--models', nargs='+', default=names, choices=names, help='of `turns 64` its larger tiles are a part')
    args = arguments(p)
    measure(args.folder, args.out, args.seeds, args.epochs, args.models)
    df = rows_of(args.out)
    for s in ('f2_other', 'f2_same', 'f2_fixed', 'seconds'): print(s, spread(df, 'model', s).round(3), sep='\n')
    print(differences(df, 'model', 'turns 64', ['f2_other']).round(4).to_string(index=False))
