"""How far may a learning rate be from what the range test suggests?

    python experiments/learning_rates/factors.py --out experiments/learning_rates/factors.csv

For each seed: a range test, then runs of 6 epochs of one cycle at a tenth, a third, once, three and ten
times the learning rate at which four fifths of the fall of its loss are done, and at the constant 0.01, all
from the same weights, with the same images and crops in the same order.

Criterion, fixed beforehand: mean IoU on the validation images, and the difference to the run at the
suggestion, paired by seed, with a 95 % interval. Three seeds on one data set show the shape; they do not
rank rules.

factors.csv has a row for each run, with what fastai's four rules say of the same curve; factors_epochs.csv
one for each epoch; factors_curve.csv one for each batch of the range tests. Where the loss was not finite,
the scores of a run are empty. An interrupted run goes on."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from constants import four_fifths
from on_streets import ENCODER, restart, streets_learner, streets_loaders, train

factors = {'1/10': .1, '1/3': 1/3, '1': 1., '3': 3., '10': 10.}


def measure(out, seeds, epochs=6):
    "A row for each run, each epoch, each batch of a range test"
    out, dls = Path(out), streets_loaders()
    file = lambda what: out.with_stem(f'{out.stem}_{what}')
    for seed in seeds:
        learn = streets_learner(dls, seed)
        about = dict(data='streets', model=ENCODER, opt='adam', seed=seed)
        with learn.no_bar(): curve = learn.lr_find()            # leaves the learner as it was
        suggestion = four_fifths(curve)
        if not is_done(file('curve'), **about):
            add_rows([dict(about, lr=x, loss=y) for x, y in zip(curve.lrs, curve.losses)], file('curve'))
        state = {k: v.detach().clone() for k, v in learn.model.state_dict().items()}
        for name, lr in {**{n: f*suggestion for n, f in factors.items()}, 'constant': .01}.items():
            run = dict(about, epochs=epochs, times=name)
            if is_done(out, **run): continue
            learn.model.load_state_dict(state)
            learn.create_opt()
            restart(learn, seed)
            rows = train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
            add_rows([dict(run, lr=lr, **r) for r in rows], file('epochs'))
            last = rows[-1] if len(rows) == epochs else {}
            scores = {k: last.get(k) for k in ('mean_iou', 'pixel_acc', 'train_loss', 'valid_loss')}
            add_rows([dict(run, lr=lr, suggestion=suggestion, **curve.suggestions, **scores)], out)
            print(f"seed {seed}, {name} times, lr {lr:.2g}: {scores}", flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    measure(args.out, args.seeds, args.epochs)
    df = rows_of(args.out)
    df['times'] = df.times.astype(str)
    for s in ('lr', 'mean_iou', 'pixel_acc', 'valid_loss'):
        print(s, spread(df, 'times', s).to_string(), sep='\n')
    print(differences(df, 'times', '1', ['mean_iou', 'pixel_acc']).round(4).to_string(index=False))
