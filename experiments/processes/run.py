"""Does a training run in two processes come to the scores of one, and what does it take?

    python experiments/processes/run.py CAMVID --out experiments/processes/camvid.csv

Calls `segnb train` in one process and in two, which share the cores and have half of the batch each, so that
both take the same steps. The table gets a row for each epoch, with the seconds since the line before it. What
is in the table is not run again. `reduce_ms` is how long two processes take to average the gradients."""
import argparse, os, re, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, is_done

LINE = re.compile(r'epoch +(\d+)/\d+ .*?(?:pixel accuracy ([\d.]+)  mean IoU ([\d.]+))?  \d+ s$')


def train(data, procs, bs, epochs, seed):
    "Rows of `segnb train`, one for each epoch"
    with tempfile.TemporaryDirectory() as tmp:
        cmd = [sys.executable, '-m', 'segnb.cli', 'train', data, '--procs', procs, '--bs', bs//procs,
               '--epochs', epochs, '--seed', seed, '--out', Path(tmp)/'m.safetensors']
        rows, last = [], None
        with subprocess.Popen(list(map(str, cmd)), stdout=subprocess.PIPE, text=True) as p:
            for line in p.stdout:
                found, now = LINE.match(line.rstrip()), time.perf_counter()
                if not found: continue
                epoch, *scores = found.groups()
                pixel_acc, mean_iou = (s and float(s) for s in scores)
                rows.append(dict(epoch=int(epoch), seconds=last and now-last, pixel_acc=pixel_acc,
                                 mean_iou=mean_iou))
                print(procs, line.rstrip(), flush=True)
                last = now
    if p.returncode or len(rows) < epochs: raise SystemExit(f'segnb train ended with {p.returncode}')
    return rows


def reduce_ms():
    "Milliseconds in which two processes average the gradients of the recipe's network"
    two = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    run = subprocess.run([*two, __file__, '--reduce'], text=True, stdout=subprocess.PIPE, check=True,
                         env={**os.environ, 'OMP_NUM_THREADS': '1'})
    return float(run.stdout.split()[-1])


def reduce():
    "What each of the two processes does"
    import torch
    from segnb.processes import Processes
    from segnb.recipe import ENCODER
    from segnb.unet import EncoderUNet
    torch.distributed.init_process_group('gloo')
    grads = [torch.zeros_like(p) for p in EncoderUNet(11, ENCODER, pretrained=False).parameters()]
    average, took = Processes()._mean, []
    for _ in range(30):
        torch.distributed.barrier()
        start = time.perf_counter()
        average(grads)
        took.append((time.perf_counter()-start)*1e3)
    if not torch.distributed.get_rank(): print(statistics.median(took[5:]))


def measure(a):
    "Train what is not in the table yet"
    for procs in a.procs:
        run = dict(data=Path(a.data).name, processes=procs, bs=a.bs//procs, epochs=a.epochs, seed=a.seed)
        if is_done(a.out, **run): continue
        took = reduce_ms() if procs > 1 else None
        rows = train(a.data, procs, a.bs, a.epochs, a.seed)
        add_rows([{**run, **r, 'reduce_ms': took} for r in rows], a.out)
    return pd.read_csv(a.out)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', help='a folder, or a data set that comes with segnb')
    p.add_argument('--procs', type=int, nargs='+', default=[1, 2])
    p.add_argument('--bs', type=int, default=8, help='images a step, over all processes')
    p.add_argument('--epochs', type=int, default=30)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--out', help='a CSV file, to which rows are added')
    p.add_argument('--reduce', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.reduce: reduce()
    else:
        df = measure(a)
        by = df.groupby(['epochs', 'processes'])
        scores, times = by[['pixel_acc', 'mean_iou']].last(), by[['seconds', 'reduce_ms']].median()
        print(scores.join(times).round(3).to_string())
