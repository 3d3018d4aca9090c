"""Do an ensemble and a mirrored view pay, with members of comparable strength?

    python experiments/ensembles/streets.py --models FOLDER --out experiments/ensembles/streets.csv

Members: tf_efficientnet_lite0 with seeds 1 to 4 and tf_efficientnet_lite1 with seeds 1 and 2, trained alike
on the drawn streets: 20 epochs of one cycle at the learning rate that the search of experiments/one_cycle
found best for one cycle of that length. The seed decides new weights, order of the images and crops.
Judged, on the validation images: each alone, every pair, triple and the four of lite0, the pair of lite1,
every pair of a lite0 and a lite1, and all six; all of these also with mirrored views.

Criterion, fixed beforehand: mean IoU of an ensemble less the mean of its members' (`gain`), and of the best
of them (`over_best`), the members with one view. Subsets of the same members overlap, so their range is
shown and no interval is claimed. Two passes through a network is the fair price for comparing a mirrored
view with a pair.

NLL is the mean of -log p of the true class over all labelled pixels, ECE that of `segnb.calibrate`, neither
with a temperature. `core_ms` is CPU time for an image of 96x128 on one thread, the median of three rounds,
measured once for each number of networks and views. Networks in FOLDER are not trained again."""
import argparse, itertools, statistics, sys, time
from pathlib import Path

import pandas as pd, torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import record
from on_streets import streets_learner, streets_loaders, train
from segnb.calibrate import Reliability
from segnb.core import VOID
from segnb.metrics import ConfusionMatrix
from segnb.model_file import load_model
from segnb.tta import TTA, Ensemble, as_probs

networks = [('lite0',1), ('lite0',2), ('lite0',3), ('lite0',4), ('lite1',1), ('lite1',2)]


def member(dls, folder, name, seed, epochs, lr):
    "A network that gives probabilities; trained, unless its file is there"
    file = Path(folder)/f'{name}_{seed}_{epochs}_{lr:g}.safetensors'
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        learn = streets_learner(dls, seed, f'tf_efficientnet_{name}')
        rows = train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
        print(name, seed, rows[-1], flush=True)
        learn.save_model(file)
    return as_probs(load_model(file))


def subsets():
    "Lists of networks: alone, and the ensembles of the docstring"
    lite0, lite1 = ([n for n in networks if n[0] == k] for k in ('lite0', 'lite1'))
    alone = [[n] for n in networks]
    of0 = [list(c) for k in (2,3,4) for c in itertools.combinations(lite0, k)]
    return [*alone, *of0, lite1, *(list(c) for c in itertools.product(lite0, lite1)), networks]


def kind(subset):
    "Such as `2 lite0` or `1 lite0 + 1 lite1`"
    n = {k: sum(a == k for a, _ in subset) for k in ('lite0', 'lite1')}
    return ' + '.join(f'{v} {k}' for k, v in n.items() if v)


def probabilities(model, dl): return torch.cat([model(x).cpu() for x, _ in dl])


def score(p, y, classes):
    "Scores of probabilities (N,classes,H,W)"
    cm, rel, keep = ConfusionMatrix(classes=classes).add(p, y), Reliability(classes), y != VOID
    rel.add(p, y)
    right = p.gather(1, y.where(keep, torch.zeros_like(y))[:,None])[:,0][keep]
    return dict(mean_iou=cm.mean_iou, pixel_acc=cm.pixel_acc, nll=float(-right.clamp_min(1e-9).log().mean()),
                ece=rel.ece)


def core_ms(model, dl, rounds=3):
    "CPU milliseconds an image, after a warm-up"
    def once():
        start = time.process_time()
        probabilities(model, dl)
        return (time.process_time()-start)/len(dl.dataset)*1e3
    once()
    return statistics.median(once() for _ in range(rounds))


def measure(folder, epochs, lr):
    "A row for each subset, with one view and with two"
    dls = streets_loaders()
    models = {n: member(dls, folder, *n, epochs, lr) for n in networks}
    y = torch.cat([y.as_subclass(torch.Tensor) for _, y in dls.valid])
    seen = lambda m, v: probabilities(m if v == 1 else TTA(m), dls.valid)
    probs = {(n, v): seen(m, v) for n, m in models.items() for v in (1,2)}
    rows, costs = [], {}
    for subset in subsets():
        for v in (1,2):
            p, at = sum(probs[n, v] for n in subset)/len(subset), (kind(subset), v)
            if at not in costs:
                m = Ensemble(*(models[n] for n in subset))
                m = m if v == 1 else TTA(m)
                torch.testing.assert_close(probabilities(m, dls.valid), p, atol=1e-5, rtol=1e-4)
                costs[at] = core_ms(m, dls.valid)
            rows.append(dict(data='streets', model=' + '.join(f'{n} {s}' for n, s in subset), kind=at[0],
                             networks=len(subset), views=v, opt='adam', lr=lr, epochs=epochs,
                             seed=' '.join(str(s) for _, s in subset), **score(p, y, dls.classes),
                             core_ms=costs[at]))
    df = pd.DataFrame(rows)
    alone = df[(df.networks == 1) & (df.views == 1)].set_index('model').mean_iou
    of = [alone[m.split(' + ')] for m in df.model]              # the members, one view each
    return df.assign(gain=[a-o.mean() for a, o in zip(df.mean_iou, of)],
                     over_best=[a-o.max() for a, o in zip(df.mean_iou, of)])


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--models', required=True, help='a folder for the networks')
    p.add_argument('--epochs', type=int, default=20)
    p.add_argument('--lr', type=float, default=3e-2)
    p.add_argument('--out', required=True, help='a CSV file')
    args = p.parse_args()
    df = measure(args.models, args.epochs, args.lr)
    record(df, args.out, float_format='%.5g', index=False)
    by = df.groupby(['kind', 'views'], sort=False)
    columns = ['mean_iou', 'pixel_acc', 'nll', 'ece', 'gain', 'over_best', 'core_ms']
    print(by[columns].mean().assign(subsets=by.size()).round(4).to_string())
    print(by.gain.agg(['min', 'max']).round(4).to_string())
