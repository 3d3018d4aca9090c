"""How long does a training step take, beside SMP's U-Net on the same encoder and fastai's `unet_learner`?

    python experiments/speed/step.py --out experiments/speed/step.csv

Each network is measured with its defaults (float32) and with the best settings for this machine (16 bits
where it is fast at them, channels last), on a GPU where there is one. A last line says how long a step waits
for its data, and how many images a second the loader gives by itself."""
import argparse, math, statistics, sys, time
from pathlib import Path

import pandas as pd, torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

here = Path(__file__).resolve()
sys.path.insert(0, str(here.parents[1]))
from common import Step, finish, in_turn, memory_of, random_batch, record, show
from peers import SMPUnet, fastai_unet
from segnb.core import VOID, half_dtype
from segnb.dataloader import SegDataLoaders
from segnb.fuse import fuse
from segnb.learner import seg_learner
from segnb.loss import SegLoss
from segnb.recipe import data_path
from segnb.unet import EncoderUNet


def peak_flops(dtype=torch.bfloat16, device='cpu', seconds=.5):
    "Operations a second of a large 3x3 convolution, about the best that a network can hope for"
    filled = lambda *shape: torch.randn(shape, dtype=dtype, device=device)
    x, w = (t.contiguous(memory_format=torch.channels_last)
            for t in (filled(8, 256, 48, 64), filled(256, 256, 3, 3)))
    sync = torch.cuda.synchronize if x.is_cuda else lambda: None
    best, end = math.inf, time.perf_counter()+seconds
    with torch.no_grad():
        F.conv2d(x, w, padding=1)
        sync()
        while time.perf_counter() < end:
            start = time.perf_counter()
            F.conv2d(x, w, padding=1)
            sync()
            best = min(best, time.perf_counter()-start)
    return 2*9*256*x.numel()/best


def _conv_backward_flop(g, x, w, _bias, _stride, _padding, _dilation, transposed, _output_padding, groups,
                        mask, out_shape=None, **kwargs):
    "Twice the multiplications of the forward pass, once for each gradient that is asked for"
    return 2*math.prod(x if transposed else g)*math.prod(w)//w[0]*(bool(mask[0])+bool(mask[1]))


def step_flops(step):
    "Operations of convolutions and matrix products while the function `step` runs"
    own = {torch.ops.aten.convolution_backward: _conv_backward_flop}
    with FlopCounterMode(display=False, custom_mapping=own) as count: step()
    return count.get_total_flops()


def contenders(size, half, arch='tf_efficientnet_lite0', n=11):
    "Name to a function that gives `(network, loss, whether in bfloat16, whether channels last)`"
    ce, own = nn.CrossEntropyLoss(ignore_index=VOID), SegLoss(weight=torch.ones(n))
    ours = lambda stages: fuse(EncoderUNet(n, arch, pretrained=False).freeze_stages(stages))
    def compiled():
        net = ours(2)
        net.compile()
        return net
    smp, fastai = lambda: SMPUnet(n, arch, False), lambda: fastai_unet(n, size)
    return {'segnb': lambda: (ours(2), own, half, True),
            'segnb, nothing frozen': lambda: (ours(0), own, half, True),
            'SMP Unet, best settings': lambda: (smp(), ce, half, True),
            'SMP Unet, defaults': lambda: (smp(), ce, False, False),
            'fastai unet_learner resnet34, best settings': lambda: (fastai(), ce, half, True),
            'fastai unet_learner resnet34, defaults': lambda: (fastai(), ce, False, False),
            # on a CPU, torch.compile needs a C++ compiler
            **({'segnb, compiled': lambda: (compiled(), own, half, True)}
               if torch.cuda.is_available() else {})}


def build(name, size, bs, make=None, device='cpu'):
    "The training step of a contender on a batch of noise"
    model, loss, *settings = (make or contenders(size, half_dtype(device) is not None)[name])()
    return Step(model.to(device), *random_batch(size, bs, device=device), loss.to(device), *settings)


def memory(name, size, bs):
    "MB that building the network and two steps take"
    before = (f"import step; half = step.half_dtype('cpu') is not None\n"
              f"make = step.contenders({tuple(size)}, half)[{name!r}]\n"
              f"step.build({name!r}, (64,64), 2, make)()")
    work = f"s = step.build({name!r}, {tuple(size)}, {bs}, make); s(); s()"
    return memory_of(before, work, here.parent)


def measure(sizes=((128,160), (192,256), (288,384)), bs=8, rounds=3, names=None, with_memory=True,
            device='cpu'):
    "A row for each size and network: ms per image, arithmetic, memory, share of the machine's peak"
    dtype, rows = half_dtype(device), []
    half, with_memory = dtype is not None, with_memory and device == 'cpu'
    peak = lambda: peak_flops(dtype or torch.float32, device)
    peaks = [peak()]                                # the best of several: a machine has slow moments
    for size in sizes:
        wanted = [k for k in contenders(size, half) if names is None or k in ('segnb', *names)]
        steps = {k: build(k, size, bs, device=device) for k in wanted}
        ms = in_turn(steps, rounds, bs)
        for k, t in ms.items():
            row = {'size': f'{size[0]}x{size[1]}', 'network': k, 'ms per image': t,
                   'times segnb': t/ms['segnb'], 'GFLOP per image': step_flops(steps[k].gradients)/bs/1e9}
            rows.append(row | ({'MB': memory(k, size, bs)} if with_memory else {}))
        del steps
        peaks.append(peak())
    df = pd.DataFrame(rows).set_index(['size', 'network'])
    return df.assign(**{'share of peak': df['GFLOP per image']/df['ms per image']/(max(peaks)/1e12)})


def loader_speed(dl, seconds=3):
    "Images a second that a loader gives when nothing else is done with them"
    next(iter(dl))
    finish()
    start, n = time.perf_counter(), 0
    while time.perf_counter()-start < seconds:
        for x, _ in dl: n += len(x)
        finish()
    return n/(time.perf_counter()-start)


def bench_wait(path, rounds=20, device='cpu', **kwargs):
    "How much of a training step is waiting for data; `kwargs` to `SegDataLoaders.from_path`"
    dls = SegDataLoaders.from_path(path, device=device, **kwargs)
    learn, batches, times = seg_learner(dls, metrics=[]), iter(()), {'data': [], 'step': []}
    step = Step(learn.model, *dls.train.one_batch(), learn.loss_func, learn.half, True)
    for r in range(rounds+2):
        start = time.perf_counter()
        b = next(batches, None)
        if b is None:
            batches = iter(dls.train)
            start = time.perf_counter()
            b = next(batches)
        finish()
        ready = time.perf_counter()
        step.x, step.y = b
        step()
        finish()
        if r < 2: continue                          # the first ones warm up
        times['data'].append(ready-start)
        times['step'].append(time.perf_counter()-ready)
    data, took = (statistics.median(times[k])/dls.train.bs*1e3 for k in ('data', 'step'))
    return {'ms of data per image': data, 'ms of the step': took, 'share waited': data/(data+took),
            'images/s of the loader': loader_speed(dls.train), 'images/s of the step': 1e3/took}


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', default='streets', help='for the waiting: folder or name')
    p.add_argument('--size', type=int, nargs=2, action='append', metavar=('H','W'), help='again for several')
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--networks', nargs='+', help='only these, beside segnb')
    p.add_argument('--no-memory', dest='memory', action='store_false')
    p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    sizes = args.size or ((128,160), (192,256), (288,384))
    df = measure([tuple(s) for s in sizes], args.bs, args.rounds, args.networks, args.memory,
                 args.device)
    show(df)
    wait = bench_wait(data_path(args.data), device=args.device, crop=(192,256), bs=args.bs)
    print({k: round(v, 3) for k, v in wait.items()})
    if args.out: record(df, args.out, waiting=wait)
