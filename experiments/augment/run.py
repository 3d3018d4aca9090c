"""What does augmentation bring when there are few training images?

    python experiments/augment/run.py --out experiments/augment/augment.csv

40 of the 240 training images of the drawn streets (every sixth, so every clip has some), 60 epochs of one
cycle at 0.01, three seeds. The contenders differ in the augmentation alone: crops of 64x96 at random places
('crops'), these mirrored at random ('and mirrored'), and with the library's defaults, which also zoom,
stretch and change brightness, contrast and saturation ('defaults').

Criterion, fixed beforehand: the difference to 'crops' in mean IoU on the validation images, paired by seed,
with a 95 % interval. An interrupted run goes on."""
import argparse, sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from on_streets import ENCODER, class_columns, streets_learner, train
from segnb.dataloader import SegDataLoaders
from segnb.dataset import find_pairs
from segnb.streets import streets

plain = dict(zoom=(1,1), aspect=(1,1), max_lighting=0)
augmentations = {'crops': dict(plain, flip=False), 'and mirrored': plain, 'defaults': {}}


def every_sixth(split):
    "A splitter with a sixth of the training images"
    def _inner(files):
        training, valid = split(files)
        return list(training)[::6], list(valid)
    return _inner


def measure(out, seeds, epochs=60, lr=1e-2):
    "A row for each augmentation and seed"
    split = every_sixth(find_pairs(streets())[1])
    for seed in seeds:
        for name, aug in augmentations.items():
            run = dict(data='streets, 40 images', model=ENCODER, augmentation=name, opt='adam', lr=lr,
                       epochs=epochs, seed=seed)
            if is_done(out, **run): continue
            dls = SegDataLoaders.from_path(streets(), size=(96,128), crop=(64,96), bs=8, split=split, **aug)
            learn = streets_learner(dls, seed)
            rows = train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
            cm = learn.confusion()
            last = dict(train_loss=rows[-1]['train_loss'], valid_loss=rows[-1]['valid_loss'])
            add_rows([dict(run, pixel_acc=cm.pixel_acc, mean_iou=cm.mean_iou, **last, **class_columns(cm))], out)
            print(run, f'mean IoU {cm.mean_iou:.3f}', flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3])
    p.add_argument('--out', required=True, help='a CSV file, to which rows are added')
    args = arguments(p)
    measure(args.out, args.seeds)
    df = rows_of(args.out)
    print(spread(df, 'augmentation', 'mean_iou').round(4).to_string())
    print(differences(df, 'augmentation', 'crops', ['mean_iou']).round(4).to_string(index=False))
