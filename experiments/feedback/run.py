"""A season: a model that was trained in daylight meets fog and night. What do 10, 20 and 40 corrections
bring, chosen at random or by uncertainty, there and in daylight?

    nice -n 10 python experiments/feedback/run.py --out experiments/feedback/season.csv

The model is the trained network of the chapters. Each seed has other streets to choose from, 40 in fog and
40 at night, and another order. After 10, 20 and 40 corrections the model in use is fine-tuned on all
corrections so far, mixed half and half with images it was trained on, and chooses the next ones: at random,
or those whose mean entropy is largest. `mistakes only` is fine-tuned on all 40 at once, and on nothing else.
`--rates` tries learning rates instead, with 20 random corrections. Runs that are in the table are not
repeated."""
import argparse, copy, sys, time
from pathlib import Path

import numpy as np, torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, is_done, rows_of
from segnb.calibrate import entropy
from segnb.dataset import SegDataset, find_pairs
from segnb.frames import Frames
from segnb.improve import fine_tune, image_matrices, mean_ious
from segnb.model_file import SegModel
from segnb.recipe import course_learner
from segnb.streets import streets

STAGES, EPOCHS = (10, 20, 40), 4


def drawn(weather, seed, n):
    "One image each of `n` streets, 96x128"
    return find_pairs(streets(size=(96,128), n_clips=n, n_frames=1, n_valid=0, seed=seed, weather=weather))[0]


def at_its_scale(learn):
    "The model for images of 96x128, which is what its training frames were resized to"
    model = learn.seg_model()
    model.scale = 1., 1.
    return model


def tests(n=16):
    "What all models are judged on: streets that no seed has"
    return {name: [ds.pair(i) for i in range(len(ds))]
            for name, ds in ((w or 'daylight', drawn(w, 900, n)) for w in (None, 'fog', 'night'))}


def scores(model, judges):
    "The mean IoU on each set"
    return {k: float(mean_ious(image_matrices(model, p).sum(0))) for k, p in judges.items()}


def uncertainty(model, ds, i): return float(entropy(model.predict_probs(ds.pair(i)[0])).mean())


class Season:
    "The images of one seed, and the model that people correct"
    def __init__(self, base, old, seed, n=40):
        self.base, self.old, self.seed = base, old, seed
        fog, night = (drawn(w, 100+seed, n) for w in ('fog', 'night'))
        self.pool = SegDataset([*fog.images, *night.images], [*fog.masks, *night.masks], base.codes)
        self.order = np.random.default_rng(seed).permutation(2*n)

    def model(self): return SegModel(copy.deepcopy(self.base.model), self.base.codes, **self.base.facts)

    def choose(self, model, how, chosen, n):
        left = [i for i in self.order if i not in chosen]
        if how == 'uncertainty': left.sort(key=lambda i: -uncertainty(model, self.pool, i))
        return chosen+left[:n-len(chosen)]

    def tuned(self, model, chosen, share=.5, lr=1e-2):
        new = Frames(self.pool.subset(chosen))
        return fine_tune(model, new, self.old, share, EPOCHS, lr, crop=(64,96), seed=self.seed)

    def run(self, how, judges):
        "A row for each stage; for mistakes alone the last one"
        model, chosen, alone = self.model(), [], how == 'mistakes only'
        for n in STAGES[-1:] if alone else STAGES:
            start = time.process_time()
            chosen = self.choose(model, how, chosen, n)
            model = self.tuned(model, chosen, 1. if alone else .5)
            night = sum(int(i) >= len(self.pool)//2 for i in chosen)
            yield dict(seed=self.seed, chosen=how, corrections=n, of_night=night, **scores(model, judges),
                       seconds=time.process_time()-start)

    def rates(self, judges, lrs):
        "A row for each learning rate, with 20 random corrections"
        for lr in lrs:
            model = self.tuned(self.model(), list(self.order[:20]), lr=lr)
            yield dict(seed=self.seed, lr=lr, **scores(model, judges))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3], help='streets, order and crops')
    p.add_argument('--rates', type=float, nargs='+', help='learning rates to try instead')
    p.add_argument('--out', required=True, help='a CSV file, to which rows are added')
    args = arguments(p)
    torch.set_num_threads(1)
    learn, judges, out = course_learner(), tests(), Path(args.out)
    base = at_its_scale(learn)
    for seed in args.seeds:
        season = Season(base, learn.dls.train_ds, seed)
        for lr in args.rates or []:
            if not is_done(out, seed=seed, lr=lr): add_rows(list(season.rates(judges, [lr])), out)
        if args.rates: continue
        if not is_done(out, seed=seed, chosen='none'):
            none = dict(seed=seed, chosen='none', corrections=0, of_night=0, seconds=0)
            add_rows([{**none, **scores(base, judges)}], out)
        for how in ('uncertainty', 'random', 'mistakes only'):
            if not is_done(out, seed=seed, chosen=how): add_rows(list(season.run(how, judges)), out)
    print(rows_of(out).round(3).to_string())
