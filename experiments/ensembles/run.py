"""What does each further view of an image and each further model bring, and what does it cost?

    for e in lite0 lite1 lite2; do
        segnb train CAMVID --encoder tf_efficientnet_$e --out $e.safetensors
    done
    python experiments/ensembles/run.py CAMVID --models lite?.safetensors \\
        --out experiments/ensembles/table.csv

Single models, each with views, all together, and all with views, on whole validation frames. Calibration is
judged on the second half of the frames, with a temperature fitted on the first half; accuracy and IoU on
all."""
import argparse, sys, time
from pathlib import Path

import pandas as pd, torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import own_split, record, show
from segnb.calibrate import Reliability, fit_temperature, some_pixels, tempered
from segnb.core import peak_memory, progress
from segnb.dataloader import Frames, SegDataLoader
from segnb.metrics import ConfusionMatrix
from segnb.model_file import load_model
from segnb.recipe import data_path
from segnb.tta import TTA, Ensemble, as_probs


def score(model, frames, first, bs=4):
    "Accuracy, calibration, seconds and memory of a model on `Frames`; `first` is the first half of them"
    m = as_probs(model)
    device = next(m.parameters()).device
    loader = lambda f: SegDataLoader(f, bs=bs, device=device)
    t, classes, seen = fit_temperature(*some_pixels(m, loader(first))), frames.ds.classes, 0
    cm, before, after = ConfusionMatrix(classes=classes), Reliability(classes), Reliability(classes)
    with peak_memory() as memory:
        start = time.perf_counter()
        for x, y in progress(loader(frames)):
            p, y = m(x), y.as_subclass(torch.Tensor)
            cm.add(p, y)
            if seen >= len(first):
                before.add(p, y)
                after.add(tempered(p, t), y)
            seen += len(x)
        seconds = (time.perf_counter()-start)/len(frames)
    return {'pixel accuracy': cm.pixel_acc, 'mean IoU': cm.mean_iou, 'temperature': t, 'ECE': before.ece,
            'ECE after': after.ece, 'seconds a frame': seconds, 'peak MB': memory[-1]}


def contenders(members, scales):
    "Name to model: members, their views, the ensemble, its views"
    every, several = Ensemble(*members.values()), f'mirrored, {len(scales)} scales'
    mirrored = {f'{n}, mirrored': TTA(m) for n, m in members.items()}
    scaled = {f'{n}, {several}': TTA(m, scales=scales) for n, m in members.items()}
    return {**members, **mirrored, **scaled, 'ensemble': every, 'ensemble, mirrored': TTA(every),
            f'ensemble, {several}': TTA(every, scales=scales),
            'ensemble, eight views (for its memory)': TTA(every, 'dihedral')}


def measure(path, models, scales=(.75,1.,1.25)):
    "A row for each model, each with views, all together, and all with views"
    ds, split = own_split(path)
    stems = [Path(f).stem for f in models]
    names = stems if len(set(stems)) == len(stems) else list(map(str, models))
    members = {n: load_model(f) for n, f in zip(names, models)}
    frames = Frames(ds.subset(split(ds.images)[1]))
    first = Frames(frames.ds.subset(range(len(frames)//2)))         # decoded once for all models
    rows = {n: score(m, frames, first) for n, m in contenders(members, scales).items()}
    return pd.DataFrame(rows).T.rename_axis('model')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='streets', help='a folder with a split of its own, or a name')
    p.add_argument('--models', nargs='+', required=True, help='model files')
    p.add_argument('--scales', type=float, nargs='+', default=(.75,1.,1.25))
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    df = measure(data_path(args.data), args.models, args.scales)
    show(df, 4)
    if args.out: record(df, args.out, float_format='%.5g')
