"""Does what a change brings on another drive hang on a few frames?

    python experiments/clips/gain.py CAMVID --seeds 1 2 --work FOLDER --out experiments/clips/gain.csv

FOLDER has the networks that run.py kept, of the recipe and of each change, with each drive left out. Each
frame is predicted by the network that has not seen its drive, and the confusion matrices of the frames are
added up, for the recipe and for the change, for each seed and over all seeds. `thin classes` is the mean IoU
of pole, sign, fence, pedestrian and bicyclist. `low` and `high` are the 95 % interval of the difference over
frames drawn with replacement (2,000 times, the same for both). It says how much hangs on single frames,
not how much hangs on the choice of three drives."""
import argparse, sys
from pathlib import Path

import numpy as np, pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import CLIPS, ENCODER, network_file
from common import THIN, own_split, record, show
from segnb.dataloader import SegDataLoader
from segnb.dataset import ClipSplitter
from segnb.frames import Frames
from segnb.improve import bootstrap, mean_ious
from segnb.metrics import ConfusionMatrix
from segnb.model_file import load_model
from segnb.recipe import data_path
from segnb.tta import TTA, as_probs


def matrices(ds, work, views, **run):
    "A confusion matrix for each frame, drive by drive: (frames,classes,classes)"
    if 'standardised' in run['change']: ds = ds.standardized()
    (h, w), n, out = ds.file_sizes[0], len(ds.classes), []
    for clip in CLIPS:
        model = as_probs(load_model(network_file(work, **run, size=f'{h}x{w}', clip=clip)))
        if views != 'none': model = TTA(model, views)
        _, held = ClipSplitter([clip])(ds.images)
        for x, y in SegDataLoader(Frames(ds.subset(held)), bs=8):
            out += [ConfusionMatrix(n).add(p[None], t[None]).matrix.numpy() for p, t in zip(model(x), y)]
    return np.stack(out)


def scores(classes):
    "Functions from matrices (…,classes,classes) to a score each"
    thin = [classes.index(c) for c in THIN]
    hits = lambda m: m.diagonal(axis1=-2, axis2=-1)
    ious = lambda m: hits(m)/(m.sum(-1)+m.sum(-2)-hits(m))
    return {'mean IoU': mean_ious, 'thin classes': lambda m: ious(m)[..., thin].mean(-1),
            'pixel accuracy': lambda m: hits(m).sum(-1)/m.sum((-1,-2))}


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='camvid', help='a folder with CamVid')
    p.add_argument('--changes', nargs='+', default=['standardised+frozen'])
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2])
    p.add_argument('--views', nargs='+', default=['none', 'flip'])
    p.add_argument('--work', required=True, help='the folder with the networks')
    p.add_argument('--out', required=True, help='a CSV file')
    args = p.parse_args()
    (ds, _), rows = own_split(data_path(args.data)), []
    run = lambda seed, change: dict(model=ENCODER, lr=4e-3, epochs=30, seed=seed, change=change)
    for views in args.views:
        of = {(c, s): matrices(ds, args.work, views, **run(s, c))
              for c in ('none', *args.changes) for s in args.seeds}
        for change in args.changes:
            for seeds in [[s] for s in args.seeds] + [args.seeds]*(len(args.seeds) > 1):
                old, new = (sum(of[c, s] for s in seeds) for c in ('none', change))  # a frame for each seed
                about = dict(change=change, views=views, seeds=' '.join(map(str, seeds)))
                rows += [dict(about, score=name, **bootstrap(old, new, score=f))
                         for name, f in scores(ds.classes).items()]
    df = pd.DataFrame(rows).rename(columns=dict(images='frames', difference='gain'))
    record(df, args.out, index=False)
    show(df)
