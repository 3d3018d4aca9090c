"""How long does a prediction take: in torch, compiled, and exported, beside SMP's U-Net on the same encoder?

    python experiments/speed/predict.py --out experiments/speed/predict.csv

Frames of 360x480, as CamVid's, one at a time and eight at once. ONNX Runtime and OpenVINO take part where
they are installed, torch.compile with --compile (minutes, and it needs a C++ compiler)."""
import argparse, shutil, sys, time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd, torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import in_turn, record, show
from peers import SMPUnet
from segnb.core import autocast, fast_bf16
from segnb.fuse import fuse
from segnb.unet import EncoderUNet


def predictor(model, x, half, channels_last):
    "A function that predicts `x`"
    model = model.eval()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    def predict():
        with torch.inference_mode(), autocast('cpu', half): return model(x).float().softmax(1)
    return predict


def compiled(f):
    "`f` through torch.compile, and the seconds of its first call; None where there is no compiler"
    if not any(map(shutil.which, ('g++', 'clang++', 'c++'))): return None, float('nan')
    torch.compiler.reset()                          # or the second size would be compiled for any size
    start, g = time.perf_counter(), torch.compile(f)
    g()
    return g, time.perf_counter()-start


def exported(ours, theirs, half):
    "Functions that predict an array, by both networks in the runtimes that are installed"
    if not find_spec('onnx'): return {}
    from segnb.export import _runtimes, to_onnx
    ways = {}
    if find_spec('onnxruntime'): ways['ONNX Runtime'] = _runtimes['onnxruntime']
    if find_spec('openvino'):
        ways['OpenVINO, float32'] = _runtimes['openvino']
        if half: ways['OpenVINO, bfloat16'] = partial(_runtimes['openvino'], half=True)
    files = {'segnb': to_onnx(ours), 'SMP Unet': to_onnx(theirs)}
    return {f'{name}, {way}': open_(file)[0] for way, open_ in ways.items() for name, file in files.items()}


def measure(size=(360,480), batches=(1,8), rounds=9, with_compile=False, with_onnx=True):
    "A row for each batch size and network: ms per frame, and how many times segnb's that is"
    half, rows = fast_bf16('cpu'), []
    ours = fuse(EncoderUNet(11, pretrained=False))
    best, defaults = SMPUnet(11, pretrained=False), SMPUnet(11, pretrained=False)
    files = exported(ours, best, half) if with_onnx else {}
    for bs in batches:
        x = torch.rand(bs, 3, *size)
        fs = {'segnb': predictor(ours, x, half, True),
              'segnb, float32': predictor(ours, x, False, True),
              'SMP Unet, best settings': predictor(best, x, half, True),
              'SMP Unet, defaults': predictor(defaults, x, False, False)}
        fs |= {k: partial(run, x.numpy()) for k, run in files.items()}
        seconds = {}
        for k in ('segnb', 'SMP Unet, best settings') if with_compile and bs == 1 else ():
            g, s = compiled(fs[k])
            if g: fs[f'{k}, compiled'], seconds[f'{k}, compiled'] = g, s
        ms = in_turn(fs, rounds, bs)
        rows += [{'frames at once': bs, 'network': k, 'ms per frame': t, 'times segnb': t/ms['segnb'],
                  'seconds to compile': seconds.get(k)} for k, t in ms.items()]
    return pd.DataFrame(rows).set_index(['frames at once', 'network'])


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--size', type=int, nargs=2, default=(360,480), metavar=('H','W'))
    p.add_argument('--batches', type=int, nargs='+', default=(1,8), help='frames at once')
    p.add_argument('--rounds', type=int, default=9)
    p.add_argument('--compile', action='store_true', help='also through torch.compile')
    p.add_argument('--no-onnx', dest='onnx', action='store_false')
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    df = measure(args.size, args.batches, args.rounds, args.compile, args.onnx)
    show(df)
    if args.out: record(df, args.out)
