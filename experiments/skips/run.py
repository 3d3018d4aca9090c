"""What do skip connections bring, and where? What do the encoder's pretrained weights bring?

    python experiments/skips/run.py --out experiments/skips/skips.csv

Two pairs of contenders, the same network and 12 epochs of one cycle at 0.01, three seeds; the seed decides
new weights, order of the images and crops.

- `skips` and `no skips`: as `seg_learner` makes it, the encoder's first two stages frozen. Without skips
  each step of the decoder gets zeros in place of the encoder's features, in training and validation; the
  network has the same layers and as many weights. The decoder then knows the image from the deepest
  features alone, 1/32 of its height and width.
- `pretrained` and `random`: ImageNet weights and new weights for the encoder, with skips, and with all
  stages learning in both.

Criterion, fixed beforehand: difference in mean IoU on the validation images, paired by seed, with a 95 %
interval. For skips also the accuracy at boundaries (pixels at most 2 away from another label of the ground
truth, void included, in steps to any of the eight neighbours) and elsewhere: skips should help at
boundaries most. An interrupted run goes on."""
import argparse, sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, arguments, differences, is_done, rows_of, spread
from on_streets import ENCODER, class_columns, streets_learner, streets_loaders, train
from segnb.core import VOID, autocast
from segnb.interpret import boundary_distance

contenders = {'skips': {}, 'no skips': {}, 'pretrained': dict(frozen_stages=0),
              'random': dict(frozen_stages=0, pretrained=False)}


def without_skips(model):
    "Give each step of the decoder zeros in place of its skip"
    for step in model.decoder:
        step.register_forward_pre_hook(lambda m, args: (args[0], torch.zeros_like(args[1])))


def by_boundary(learn, width=2):
    "Accuracy at boundaries of the ground truth and elsewhere on the validation set; share of the former"
    right, n, model = torch.zeros(2), torch.zeros(2), learn.model.eval()
    with torch.inference_mode():
        for x, y in learn.dls.valid:
            with autocast(x.device, learn.half): pred = model(x).argmax(1)
            for p, t in zip(pred.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)):
                near, known = torch.from_numpy(boundary_distance(t, width)) <= width, t != VOID
                for k, where in enumerate((near & known, ~near & known)):
                    right[k] += (p == t)[where].sum()
                    n[k] += where.sum()
    acc = (right/n).tolist()
    return dict(boundary_acc=acc[0], inner_acc=acc[1], boundary_share=float(n[0]/n.sum()))


def measure(out, seeds, epochs=12, lr=1e-2):
    "A row for each contender and seed"
    dls = streets_loaders()
    for seed in seeds:
        for name, kwargs in contenders.items():
            run = dict(data='streets', model=ENCODER, network=name, opt='adam', lr=lr, epochs=epochs,
                       seed=seed)
            if is_done(out, **run): continue
            learn = streets_learner(dls, seed, **kwargs)
            if name == 'no skips': without_skips(learn.model)
            assert learn.model.encoder.pretrained == (name != 'random')
            train(learn, lambda cbs: learn.fit_one_cycle(epochs, lr, cbs=cbs))
            cm = learn.confusion()
            add_rows([dict(run, mean_iou=cm.mean_iou, pixel_acc=cm.pixel_acc, **by_boundary(learn),
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
    scores = ['mean_iou', 'pixel_acc', 'boundary_acc', 'inner_acc']
    for s in scores: print(s, spread(df, 'network', s).round(4).to_string(), sep='\n')
    for pair in (['no skips', 'skips'], ['random', 'pretrained']):
        part = df[df.network.isin(pair)]
        print(differences(part, 'network', pair[0], scores).round(4).to_string(index=False))
    ious = [c for c in df if c.startswith('IoU')]
    print(df.groupby('network', sort=False)[ious].mean().T.round(3).to_string())
