"""Does one cycle beat a constant learning rate?

    python experiments/one_cycle/run.py --out experiments/one_cycle/one_cycle.csv

Three schedules with the same optimiser (Adam with decoupled weight decay) and the same loss: `one cycle`
(our `fit_one_cycle`: learning rate up and down, momentum down and up), `constant` (fastai's `fit`) and
`flat, cosine` (fastai's `fit_flat_cos`: constant for three quarters of the run, then a cosine to almost 0).

1. The search, with seed 0: each schedule at each of the learning rates 0.001, 0.003, 0.01, 0.03, for 6 and
   for 20 epochs. Where the best lies at an end of this grid, one more is tried beyond it (0.0003 or 0.1).
2. The comparison, with seeds 1 to 5: each schedule at its own best learning rate for that length. The seed
   decides new weights, order of the images and crops.

Criterion, fixed beforehand: the mean over the seeds of the comparison of the difference in final mean IoU
on the validation images, one cycle less constant, for each length, with a 95 % interval (Student's t,
paired by seed). Final is what the last epoch leaves; no epoch is picked. `flat, cosine` says how much of it
is the decay at the end. The search reads the validation images as well, for all schedules alike.

one_cycle.csv has a row for each run (`part`: search or comparison), one_cycle_epochs.csv one for each epoch.
An interrupted run goes on; --lengths and --schedules do part of the work."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from on_streets import ENCODER, streets_learner, streets_loaders, train

schedules = {'one cycle': lambda learn, n, lr, cbs: learn.fit_one_cycle(n, lr, cbs=cbs),
             'constant': lambda learn, n, lr, cbs: learn.fit(n, lr, cbs=cbs),
             'flat, cosine': lambda learn, n, lr, cbs: learn.fit_flat_cos(n, lr, cbs=cbs)}
grid, below, above = (1e-3,3e-3,1e-2,3e-2), 3e-4, 1e-1


def once(dls, out, models=None, **run):
    "One run, unless it is in the table"
    if is_done(out, **run): return
    learn, fit = streets_learner(dls, run['seed']), schedules[run['schedule']]
    rows = train(learn, lambda cbs: fit(learn, run['epochs'], run['lr'], cbs))
    last = rows[-1] if len(rows) == run['epochs'] else {}
    scores = {k: last.get(k) for k in ('mean_iou', 'pixel_acc', 'train_loss', 'valid_loss')}
    add_rows([dict(run, **r) for r in rows], out.with_stem(f'{out.stem}_epochs'))
    if models and run['schedule'] == 'one cycle' and run['part'] == 'comparison':
        Path(models).mkdir(parents=True, exist_ok=True)
        learn.save_model(Path(models)/f"lite0_{run['seed']}_{run['epochs']}_{run['lr']:g}.safetensors")
    add_rows([dict(run, **scores)], out)
    print(run, scores, flush=True)


def best_lr(out, schedule, epochs):
    "The learning rate of the search with the highest mean IoU"
    df = rows_of(out)
    df = df[(df.part == 'search') & (df.schedule == schedule) & (df.epochs == epochs)]
    return float(df.loc[df.mean_iou.idxmax(), 'lr'])


def search(dls, out, about, schedule, epochs):
    "Each learning rate of the grid, and one beyond an end where that is the best"
    run = lambda lr: once(dls, out, **about, part='search', schedule=schedule, epochs=epochs, lr=lr, seed=0)
    for lr in grid: run(lr)
    if best_lr(out, schedule, epochs) == grid[0]: run(below)
    if best_lr(out, schedule, epochs) == grid[-1]: run(above)


def measure(out, lengths, seeds, names=tuple(schedules), models=None):
    "Search, then comparison"
    out, dls, about = Path(out), streets_loaders(), dict(data='streets', model=ENCODER, opt='adam')
    for epochs in lengths:
        for s in names: search(dls, out, about, s, epochs)
    best = {(s, n): best_lr(out, s, n) for s in names for n in lengths}
    print(best, flush=True)
    for seed in seeds:
        for (s, n), lr in best.items():
            once(dls, out, models, **about, part='comparison', schedule=s, epochs=n, lr=lr, seed=seed)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--lengths', type=int, nargs='+', default=[6,20], help='epochs')
    p.add_argument('--schedules', nargs='+', default=tuple(schedules), choices=list(schedules))
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3,4,5], help='of the comparison')
    p.add_argument('--models', help="a folder for the one cycles' networks: members of ensembles/streets.py")
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = arguments(p, vary=('seeds','lengths','schedules'))
    measure(args.out, args.lengths, args.seeds, args.schedules, args.models)
    df = rows_of(args.out)
    df = df[df.part == 'comparison']
    print(spread(df, ['epochs', 'schedule', 'lr'], 'mean_iou').round(4).to_string())
    for n in args.lengths:
        for first in [s for s in ('constant', 'flat, cosine') if s in set(df[df.epochs == n].schedule)]:
            d = differences(df[df.epochs == n], 'schedule', first, ['mean_iou', 'pixel_acc', 'valid_loss'])
            print(n, 'epochs', d.round(4).to_string(index=False), sep='\n')
