"""What does each loss do for the classes, the rare ones above all?

    python experiments/losses/run.py --out experiments/losses/losses.csv

Six losses, the same network, 12 epochs of one cycle at 0.01, three seeds; the seed decides new weights,
order of the images and crops, so that the runs of a seed differ in the loss alone. The learning rate is the
same for all and was not tuned for any.

Criterion, fixed beforehand: the difference to plain cross-entropy in mean IoU on the validation images,
paired by seed, with a 95 % interval. IoU and accuracy of each class say what it costs the others; the four
classes with the fewest pixels in the training set are the rare ones. An interrupted run goes on."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from on_streets import ENCODER, class_columns, streets_learner, streets_loaders, train
from segnb.dataset import pixel_counts
from segnb.loss import SegLoss, class_weights


def losses(counts):
    "Name to a loss; `shipped` is what `seg_learner` and `segnb train` use"
    weights = lambda power: class_weights(counts, power)
    return {'plain': SegLoss(dice=0),
            'root weights': SegLoss(weight=weights(.5), dice=0, adjust=False),
            'weights': SegLoss(weight=weights(1), dice=0, adjust=False),
            'dice': SegLoss(),
            'shipped': SegLoss(weight=weights(.5)),
            'focal': SegLoss(dice=0, gamma=2)}


def measure(out, seeds, epochs=12, lr=1e-2):
    "A row for each loss and seed"
    dls = streets_loaders()
    counts = pixel_counts(dls.train_ds, len(dls.classes))
    for seed in seeds:
        for name, loss in losses(counts).items():
            run = dict(data='streets', model=ENCODER, loss=name, opt='adam', lr=lr, epochs=epochs, seed=seed)
            if is_done(out, **run): continue
            learn = streets_learner(dls, seed, loss_func=loss)
            train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
            cm = learn.confusion()
            add_rows([dict(run, pixel_acc=cm.pixel_acc, mean_iou=cm.mean_iou, mean_acc=cm.mean_acc,
                           **class_columns(cm))], out)
            print(f'{name}, seed {seed}: mean IoU {cm.mean_iou:.3f}', flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=12)
    p.add_argument('--lr', type=float, default=1e-2)
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    measure(args.out, args.seeds, args.epochs, args.lr)
    df = rows_of(args.out)
    scores = ['mean_iou', 'pixel_acc', 'mean_acc']
    for s in scores: print(s, spread(df, 'loss', s).round(4).to_string(), sep='\n')
    print(differences(df, 'loss', 'plain', scores).round(4).to_string(index=False))
    ious = [c for c in df if c.startswith('IoU')]
    print(df.groupby('loss', sort=False)[ious].mean().T.round(3).to_string())
