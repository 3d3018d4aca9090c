"""What the experiments share: functions run in turn, a training step, memory, tables with their facts"""
import io, json, os, shlex, statistics, subprocess, sys, tempfile, time
from contextlib import redirect_stderr
from pathlib import Path

import pandas as pd, torch, torch.nn as nn
from scipy import stats
from segnb.core import atomic_file, autocast, machine, one_at_a_time
from segnb.dataset import find_pairs

# the classes of CamVid, and of the drawn streets, that are a few pixels wide or rare
THIN = 'Pole', 'SignSymbol', 'Fence', 'Pedestrian', 'Bicyclist'


def compare(speeds, rounds=3):
    """Run the functions of a dictionary in turn, after a warm-up of each, and compare what they return.

    The result has a row for each: median, lowest, highest, and `ratio`, the first's median by its own."""
    for f in speeds.values(): f()
    got = {name: [] for name in speeds}
    for _ in range(rounds):
        for name, f in speeds.items(): got[name].append(f())
    rows = {n: dict(median=statistics.median(v), lowest=min(v), highest=max(v)) for n, v in got.items()}
    df = pd.DataFrame(rows).T
    return df.assign(ratio=df['median'].iloc[0]/df['median'])


def finish():
    "Wait until a GPU has done what it was told"
    if torch.cuda.is_available(): torch.cuda.synchronize()


def in_turn(fs, rounds, per=1):
    "Median milliseconds of each function in a dictionary, run in turn, divided by `per`"
    def timed(f):
        def ms():
            start = time.perf_counter()
            f()
            finish()
            return (time.perf_counter()-start)/per*1e3
        return ms
    return compare({name: timed(f) for name, f in fs.items()}, rounds)['median'].to_dict()


def memory_of(before, work, folder):
    """MB that the line `work` takes in a new process (Linux), after the lines `before`, which do not count.

    Both may import the scripts in `folder`."""
    code = (f"from segnb.core import peak_memory\n{before}\n"
            f"with peak_memory() as mb:\n    {work}\nprint(mb[-1])")
    paths = [str(folder), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))}
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=env, check=True, text=True,
                         stdout=subprocess.PIPE)
    return float(run.stdout.split()[-1])


def random_batch(size, bs, classes=11, device='cpu'):
    "Images and masks of noise"
    torch.manual_seed(0)
    return torch.rand(bs, 3, *size).to(device), torch.randint(0, classes, (bs, *size)).to(device)


class LastMap(nn.Module):
    "The last feature map of an encoder"
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
    def forward(self, x): return self.encoder(x)[-1]


class Step:
    "A network, its loss and its optimiser on one batch: called, it takes a training step"
    def __init__(self, model, x, y, loss, half=False, channels_last=False):
        self.model, self.loss, self.half, self.x, self.y = model.train(), loss, half, x, y
        if channels_last:
            self.x = x.contiguous(memory_format=torch.channels_last)
            self.model.to(memory_format=torch.channels_last)
        self.opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)

    def gradients(self):
        with autocast(self.x.device, self.half): logits = self.model(self.x)
        self.loss(logits.float(), self.y).backward()

    def __call__(self):
        self.gradients()
        self.opt.step()
        self.opt.zero_grad()


def facts(command=None, **more):
    "What a measurement was made on, and by which command; default: the one that runs now"
    command = command or shlex.join(['python', *sys.argv])
    return {**machine(), 'command': command, **more}


def record(df, csv, command=None, more=False, float_format='%.4g', index=True, **about):
    """Write a table, and beside it `<name>.json` with machine, date and command.

    With `more`, the file goes on an earlier one: its facts are added to those that are there."""
    csv = Path(csv)
    note = csv.with_suffix('.json')
    earlier = json.loads(note.read_text())['measured'] if more and note.exists() else []
    with atomic_file(csv) as tmp: df.to_csv(tmp, float_format=float_format, index=index)
    measured = {'measured': [*earlier, facts(command, **about)]}
    with atomic_file(note) as tmp: tmp.write_text(json.dumps(measured, indent=1, ensure_ascii=False)+'\n')
    return csv


def rows_of(csv):
    "The rows of a table that may not be there yet"
    return pd.read_csv(csv) if Path(csv).exists() else pd.DataFrame()


def is_done(csv, **run):
    "Whether a table has rows of a run, that is, with these values in these columns"
    df = rows_of(csv)
    return len(df) > 0 and all(k in df for k in run) and (df[[*run]] == pd.Series(run)).all(axis=1).any()


def arguments(parser, vary=('seeds',)):
    """The arguments of a script whose table grows.

    Ends it where the table was begun with other settings, as the commands in `<name>.json` say: rows of a short
    trial are not to pass for results. What is in `vary` may differ, as the rows say which they are of."""
    args, free = parser.parse_args(), {'out', 'data', 'folder', 'models', *vary}
    note = Path(args.out).with_suffix('.json')
    for entry in json.loads(note.read_text())['measured'] if note.exists() else []:
        words = shlex.split(entry.get('command', ''))
        script = next((k for k, w in enumerate(words) if w.endswith('.py')), None)
        if script is None: continue
        try:
            with redirect_stderr(io.StringIO()): then = vars(parser.parse_args(words[script+1:]))
        except SystemExit: continue                             # options of an earlier version
        other = [f'--{k} {v}' for k, v in then.items() if k not in free and v != getattr(args, k)]
        if other: parser.error(f"{args.out} was made with {', '.join(other)}: choose another --out")
    return args


_started = time.strftime('%H:%M:%S')


def add_rows(rows, csv):
    """Add rows to a table that grows run by run; several processes may do so at once.

    `<name>.json` has one entry for each process that added some: machine, date, command, number of rows."""
    csv, me = Path(csv), f'{_started} {os.getpid()}'
    csv.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(Path(tempfile.gettempdir())/f'{csv.stem}.rows'):
        df, note = pd.concat([rows_of(csv), pd.DataFrame(rows)], ignore_index=True), csv.with_suffix('.json')
        earlier = json.loads(note.read_text())['measured'] if note.exists() else []
        mine = [e for e in earlier if e.get('process') == me]
        with atomic_file(csv) as tmp: df.to_csv(tmp, float_format='%.5g', index=False)
        about = facts(process=me, rows=len(rows)+sum(e['rows'] for e in mine))
        measured = {'measured': [*(e for e in earlier if e not in mine), about]}
        with atomic_file(note) as tmp: tmp.write_text(json.dumps(measured, indent=1, ensure_ascii=False)+'\n')


def spread(df, by, column):
    "Mean, standard deviation and number of runs of each group"
    return df.groupby(by, sort=False)[column].agg(['mean', 'std', 'count'])


def interval(d):
    "Mean of some differences, and how far the ends of its 95 % interval (Student's t) are from it"
    d = pd.Series(d).dropna()
    return d.mean(), stats.t.ppf(.975, len(d)-1)*d.sem() if len(d) > 1 else float('nan')


def differences(df, name, first, columns, pair=('seed',)):
    """Each contender less the contender `first`, paired by seed: mean and half of the 95 % interval.

    `name` is the column that says which contender a row is of."""
    wide = df.pivot_table(index=list(pair), columns=name, values=list(columns), sort=False)
    rows = []
    for n in df[name].unique():
        if n == first: continue
        for c in columns:
            d = (wide[c][n]-wide[c][first]).dropna()
            mean, half = interval(d)
            rows.append({name: f'{n} - {first}', 'score': c, 'mean': mean, '±': half, 'pairs': len(d)})
    return pd.DataFrame(rows)


def show(df, digits=3):
    "Print a table and the machine"
    print(df.round(digits).to_string())
    print(', '.join(f'{k} {v}' for k, v in machine().items()))


def own_split(path):
    "`(SegDataset, splitter)` of a folder that comes with a split; `ValueError` where it does not"
    ds, split = find_pairs(path)
    if split is None:
        raise ValueError(f"{path} comes without a split: a list valid.txt, or val/ with valannot/, says "
                         "which frames are for validation")
    return ds, split
