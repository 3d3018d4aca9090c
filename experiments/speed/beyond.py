"""How many training images a second do the three ways to hold frames give, on data larger than memory?

    python experiments/speed/beyond.py --work FOLDER --out experiments/speed/beyond.csv

Makes 20,000 pairs of 1024x2048: 48 street scenes drawn at a quarter of the size, enlarged and saved (JPEG,
masks as PNG). The 20,000 names are hard links to these files, so that the source files take few megabytes and
are always in the operating system's cache. Decoded they are 156 GB. Each row of the table is measured in a
process of its own, which may not have more than 4 GB of private memory (RLIMIT_DATA; its workers neither), on
the loader alone and in training:

- in memory: a part of the images, as many as fit, at a quarter of their size each way (256x512);
- in a file: all of them at that size, which is 9.8 GB. It is written once. Before the measurement, what the
  system has of it in its cache is thrown out ("cold"), or all of it is read ("warm");
- decoded as they are drawn, at that size and at their own.

GB of memory are the peak of process and workers together: anonymous and shared memory, without pages of
mapped files, which the system takes back whenever it needs them."""
import argparse, json, os, resource, subprocess, sys, threading, time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import record, show

GB = 2**30
FULL, QUARTER = (1024,2048), (256,512)
# row, way, size, how many images
ROWS = [('in memory', 'memory', QUARTER, 2000),
        ('in a file, cold', 'file', QUARTER, None),
        ('in a file, warm', 'file', QUARTER, None),
        ('decoded as drawn', 'decode', QUARTER, 2000),
        ('decoded as drawn, 1024x2048', 'decode', FULL, None)]


def make_set(path, n, distinct=48):
    "A folder with `n` pairs, of which `distinct` are different"
    from PIL import Image
    from segnb.core import atomic_folder
    from segnb.streets import streets
    def fill(tmp):
        scenes = streets(tmp/'scenes', n_clips=distinct, n_frames=1, size=QUARTER, n_valid=1)
        for d in ('images', 'labels'): (tmp/d).mkdir()
        (tmp/'codes.txt').write_bytes((scenes/'codes.txt').read_bytes())
        kinds = ('images', '', 'jpg', Image.BICUBIC), ('labels', '_P', 'png', Image.NEAREST)
        for d, end, suffix, resample in kinds:
            for k, f in enumerate(sorted((scenes/d).glob('*.png'))):
                first = tmp/d/f'{k:05}{end}.{suffix}'
                Image.open(f).resize(FULL[::-1], resample).save(first, quality=85)
                for i in range(k+distinct, n, distinct): os.link(first, tmp/d/f'{i:05}{end}.{suffix}')
    if not path.exists():
        with atomic_folder(path, path.exists) as tmp: fill(tmp)
    return path


def own_memory(pid):
    "GB of a process and its children: anonymous and shared memory, shared pages counted once"
    import psutil
    total = 0
    try: family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error: return 0
    for p in family:
        try: lines = Path(f'/proc/{p.pid}/smaps_rollup').read_text().splitlines()
        except OSError: continue
        total += sum(int(l.split()[1]) for l in lines if l.startswith(('Pss_Anon', 'Pss_Shmem')))
    return total*1024/GB


def measure(path, way, size, n, crop, bs, batches, cold, bound):
    "What one row of the table says; runs in a process of its own"
    resource.setrlimit(resource.RLIMIT_DATA, (int(bound*GB),)*2)
    from fastai.callback.core import Callback, CancelFitException
    from segnb.all import SegDataLoaders, find_pairs, seg_learner
    from segnb.frames import frames_file
    start = time.perf_counter()
    ds, _ = find_pairs(path, size=size)
    ds = ds.subset(range(n or len(ds)))
    split = lambda files: (range(40, len(files)), range(40))
    dls = SegDataLoaders.from_dataset(ds, split, crop, bs, device='cpu', frames=way)
    prepared = time.perf_counter()-start
    if way == 'file':
        fn = frames_file(dls.train_ds.ds)
        with open(fn, 'rb') as f:
            if cold: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while f.read(2**24): pass
    def rate(dl):
        seen, it = 0, iter(dl)
        for _ in range(4): next(it)
        start = time.perf_counter()
        for _ in range(batches): seen += len(next(it)[0])
        return seen/(time.perf_counter()-start)
    loader = rate(dls.train)
    class Few(Callback):
        "Stops after some batches, and does not count the first ones"
        def after_batch(self):
            if self.iter == 3: self.learn.begun = time.perf_counter()
            self.learn.ended = time.perf_counter()
            if self.iter == 3+batches: raise CancelFitException
    learn = seg_learner(dls, cbs=Few())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    training = batches*bs/(learn.ended-learn.begun)
    return {'GB decoded': dls.train_ds.nbytes/GB, 'prepared in s': prepared, 'loader images/s': loader,
            'training images/s': training, 'images': len(dls.train_ds)}


def run_row(path, home, name, way, size, n, args):
    "Measure in another process, and watch its memory"
    from segnb.core import machine
    asked = dict(path=str(path), way=way, size=size, n=n, crop=args.crop, bs=args.bs, batches=args.batches,
                 cold='cold' in name, bound=args.bound)
    child = subprocess.Popen([sys.executable, __file__, '--one', json.dumps(asked)], text=True,
                             stdout=subprocess.PIPE, env={**os.environ, 'SEGNB_HOME': str(home)})
    peaks, done = [0], threading.Event()
    def watch():
        while not done.wait(1): peaks.append(own_memory(child.pid))
    thread = threading.Thread(target=watch)
    thread.start()
    lines = child.stdout.read().splitlines()
    done.set()
    thread.join()
    if child.wait(): raise SystemExit(f'{name}: failed')
    print(*lines[:-1], sep='\n', flush=True)
    row = {'way': name, 'size': 'x'.join(map(str, size)), **json.loads(lines[-1]), 'GB of memory': max(peaks)}
    return row | {'date': machine()['date']}


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', default='beyond', help='folder for images and cache; about 10 GB')
    p.add_argument('--images', type=int, default=20_000)
    p.add_argument('--crop', type=int, nargs=2, default=(128,256), metavar=('H','W'))
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--batches', type=int, default=200)
    p.add_argument('--bound', type=float, default=4, help='GB of private memory of each process')
    p.add_argument('--rows', type=int, nargs='+', help='only these rows, from 0')
    p.add_argument('--out', help='a CSV file; rows are added as they are measured')
    p.add_argument('--one', help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.one: print(json.dumps(measure(**json.loads(args.one))))
    else:
        path, rows = make_set(Path(args.work)/f'set-{args.images}', args.images), []
        for k in args.rows or range(len(ROWS)):
            name, way, size, n = ROWS[k]
            n = n and min(n, args.images)
            rows.append(run_row(path, Path(args.work)/'home', name, way, size, n, args))
            df = pd.DataFrame(rows).set_index('way')
            if not args.out: continue
            if Path(args.out).exists():                         # rows that are not measured now stay
                old = pd.read_csv(args.out, index_col='way')
                df = pd.concat([old.drop(index=df.index, errors='ignore'), df])
            record(df, args.out, more=True)
        show(df, 2)
