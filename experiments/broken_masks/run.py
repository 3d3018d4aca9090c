"""What do broken training masks cost in mean IoU?

    python experiments/broken_masks/run.py --out experiments/broken_masks/broken.csv

The training run of `on_streets`, 12 epochs, three seeds. The training masks are right; or were reduced by
interpolation; or lie three pixels too far to the right and below. Nothing of that raises an error. Validation
masks are right. An interrupted run goes on."""
import argparse, shutil, sys, tempfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from on_streets import ENCODER, class_columns, streets_learner, train
from segnb.dataloader import SegDataLoaders
from segnb.streets import streets


def mask_as(fn, how, size):
    "A mask at `(height,width)`"
    im = Image.open(fn)
    if how == 'interpolated': return im.resize(size[::-1], Image.BILINEAR)
    m = np.asarray(im.resize(size[::-1], Image.NEAREST))
    return Image.fromarray(m if how == 'right' else np.pad(m, ((3,0), (3,0)), 'edge')[:-3,:-3])


def spoiled(how, folder, size=(96,128)):
    "The streets at a smaller size, with training masks as they are asked for"
    source = streets()
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns('*.png', 'models'))
    valid = set((source/'valid.txt').read_text().split())
    for fn in sorted((source/'images').glob('*.png')):
        label = f'{fn.stem}_P.png'
        Image.open(fn).resize(size[::-1], Image.BILINEAR, reducing_gap=3).save(folder/'images'/fn.name)
        mask_as(source/'labels'/label, 'right' if fn.name in valid else how, size).save(folder/'labels'/label)
    return folder


def measure(out, seeds, epochs=12, lr=1e-2):
    "A row for each kind of masks and seed"
    with tempfile.TemporaryDirectory() as tmp:
        for how in ('right', 'interpolated', 'shifted'):
            dls = SegDataLoaders.from_path(spoiled(how, Path(tmp)/how), crop=(64,96), bs=16)
            for seed in seeds:
                run = dict(data='streets', model=ENCODER, masks=how, opt='adam', lr=lr, epochs=epochs, seed=seed)
                if is_done(out, **run): continue
                learn = streets_learner(dls, seed)
                train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
                cm = learn.confusion()
                add_rows([dict(run, pixel_acc=cm.pixel_acc, mean_iou=cm.mean_iou, **class_columns(cm))], out)
                print(f'{how}, seed {seed}: mean IoU {cm.mean_iou:.3f}', flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=12)
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    measure(args.out, args.seeds, args.epochs)
    df = rows_of(args.out)
    for s in ('mean_iou', 'pixel_acc'): print(s, spread(df, 'masks', s).round(4).to_string(), sep='\n')
    print(differences(df, 'masks', 'right', ['mean_iou', 'pixel_acc']).round(4).to_string(index=False))
