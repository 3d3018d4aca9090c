"""Counting nuclei that touch: what does a mask miss, and what do a border class and a distance map bring?

    python experiments/nuclei/run.py NUCLEI --out experiments/nuclei/nuclei.csv

`NUCLEI` is a folder with `images/NAME.png` and `masks/NAME.png` (0 background, otherwise nucleus), such as
stage 1 of the 2018 Data Science Bowl with its instances merged. Each image is stretched to the full range; of
images larger than 256x256 the middle is taken. A component of a mask counts as one nucleus if it fills 0.9 of
its convex hull; the others are unknown: neither trained on nor counted. Touching nuclei are made by pasting
(see `segnb.instances.paste_touching`): for each ten known nuclei three are cut out and laid beside another
one, over which they reach by 0 to 3 pixels. Contenders:

- `Otsu, components`, `Otsu, watershed`: a threshold for each image (Otsu 1979), no network;
- `mask, components`, `mask, watershed`: a U-Net for background and nucleus; the watershed is on the distance
  transform of the predicted mask;
- `border class`: a U-Net for background, inside and border;
- `distance map`: a U-Net with two outputs, the mask and the normalised distance to the nucleus's edge, and a
  watershed on the second.

The three networks have the same encoder (ImageNet weights), crops, epochs and learning rate. The seed decides
the split (96 images for training, 20 for choosing the watershed's one parameter, 60 for the test),
which nuclei are pasted where, new weights, order and crops, so an interval over seeds includes all of these.
Criterion, fixed beforehand: F1 over the instances of all test images at IoU 0.5. Beside it: `count_error` and
`count_bias` (see `instance_scores`), `pairs` (the share of pasted pairs of which both were found), `lone` (of
the known nuclei outside pairs, the share found), `clusters` (of the unknown components of at least 150
pixels, the share that was cut in two or more). Of the images nothing is written but these. An interrupted run
goes on."""
import argparse, sys, tempfile, time
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np, torch, torch.nn.functional as F
from fastai.torch_core import set_seed
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

from common import add_rows, arguments, differences, is_done, rows_of, spread
from segnb.core import VOID
from segnb.dataloader import SegDataLoaders
from segnb.dataset import SegDataset
from segnb.instances import (DEEPEST, UNKNOWN, border_codes, border_mask, components, distance_mask,
                             instance_scores, known_instances, match_instances, paste_touching, split_border,
                             split_distance, split_mask)
from segnb.learner import seg_learner
from segnb.masks import Codes
from segnb.one_cycle import fit_one_cycle
from segnb.unet import EncoderUNet

SIDE, SMALL, LR = 256, 20, 1e-2                     # the smallest nucleus that counts has 20 pixels
torch.set_num_threads(1)


def middle(a):
    top, left = ((s-SIDE)//2 for s in a.shape)
    return a[top:top+SIDE,left:left+SIDE]


@cache
def read(fn):
    "An image (0..255) and its known instances"
    with Image.open(fn) as im, Image.open(fn.parents[1]/'masks'/fn.name) as m:
        image, mask = (middle(np.asarray(o.convert('L'))) for o in (im, m))
    low, high = np.percentile(image, [1, 99.8])
    return ((image-low)/max(high-low, 1)).clip(0, 1)*255, known_instances(mask > 0, min_area=SMALL)


def pasted(image, instances, rng):
    "Image, instances, and pairs of numbers, with pasted nuclei"
    known = np.setdiff1d(instances, (0,UNKNOWN))
    several, depth = round(.3*len(known)), int(rng.integers(4))
    image, instances, pairs = paste_touching(image, instances, rng, several, depth)
    return image.round().astype(np.uint8), instances, pairs


MASKS = {'mask': lambda i: np.where(i == UNKNOWN, VOID, i > 0).astype(np.uint8), 'border class': border_mask,
         'distance map': distance_mask}
CODES = {'mask': ['background','nucleus'], 'border class': border_codes,
         'distance map': [f'{i}/{DEEPEST}' for i in range(DEEPEST+1)]}


class DistanceLoss(torch.nn.Module):
    "Binary cross-entropy of two outputs: whether a pixel is in a nucleus, and its distance, 0 to 1"
    def forward(self, out, y):
        out, y = out.as_subclass(torch.Tensor).float(), y.as_subclass(torch.Tensor)
        target = torch.stack([(y > 0).float(), y.clamp_max(DEEPEST)/DEEPEST], 1)
        loss = F.binary_cross_entropy_with_logits(out, target, reduction='none')
        return loss.mean(1)[y != VOID].mean()


def train(kind, data, epochs, seed, crop):
    "A network for one kind of target, and the CPU seconds of its training"
    with tempfile.TemporaryDirectory() as tmp:
        names = [[Path(tmp)/f'{part}{i}.png' for i in range(len(data))] for part in 'xy']
        for x,y,(image,instances,_) in zip(*names, data):
            Image.fromarray(image).save(x)
            Image.fromarray(MASKS[kind](instances)).save(y)
        ds = SegDataset(*names, Codes(CODES[kind], void=()))
        n = len(data)-2                                         # the loaders want some for validation, too
        split = lambda files: (list(range(n)), list(range(n, len(data))))
        set_seed(seed)
        dls = SegDataLoaders.from_dataset(ds, split, crop=crop, bs=4, device='cpu', dihedral=True)
        dls.train.rng.seed(seed)
        if kind != 'distance map': learn = seg_learner(dls)
        else: learn = seg_learner(dls, EncoderUNet(2).freeze_stages(2), DistanceLoss(), metrics=[])
        start = time.process_time()
        with learn.no_bar(), learn.no_logging(): fit_one_cycle(learn, epochs, LR)
    return learn.model.eval(), time.process_time()-start


@torch.inference_mode()
def outputs(model, data):
    "What a network says of the images: (C,H,W) for each"
    x = torch.from_numpy(np.stack([d[0] for d in data]))[:,None].expand(-1, 3, -1, -1)
    return [o.numpy() for part in x.split(8) for o in model(part/255).float()]


def sigmoid(a): return 1/(1+np.exp(-a))


def otsu(image):
    image = gaussian_filter(image.astype(float), 1)
    return image > threshold_otsu(image)


H, SHARES = (.1, .25, .5, 1., 2.), (.01, .03, .06, .1, .2)
METHODS = {'Otsu, components': ('otsu', lambda m,_: components(m, SMALL), (None,)),
           'Otsu, watershed': ('otsu', lambda m,h: split_mask(m, h, SMALL), H),
           'mask, components': ('mask', lambda o,_: components(o[1] > o[0], SMALL), (None,)),
           'mask, watershed': ('mask', lambda o,h: split_mask(o[1] > o[0], h, SMALL), H),
           'border class': ('border class', lambda o,_: split_border(o.argmax(0), SMALL), (None,)),
           'distance map': ('distance map', lambda o,h: split_distance(o[0] > 0, sigmoid(o[1]), h, SMALL),
                            SHARES)}


def found(preds, data):
    "Shares of pairs and of lone nuclei that were found, and of unknown clusters that were cut"
    pairs, lone, clusters = [], [], []
    for pred,(_,true,made) in zip(preds, data):
        hit = {a for a,_ in match_instances(pred, true)[0]}
        pairs += [a in hit and b in hit for a,b in made]
        lone += [k in hit for k in np.setdiff1d(true, (0,UNKNOWN,*np.ravel(made)))]
        unknown = components(true == UNKNOWN, 150)
        for k in range(1, unknown.max()+1):
            names, areas = np.unique(pred[unknown == k], return_counts=True)
            clusters.append((areas[names > 0] >= SMALL).sum() > 1)
    return dict(pairs=np.mean(pairs), lone=np.mean(lone), clusters=np.mean(clusters), n_pairs=len(pairs),
                n_lone=len(lone), n_clusters=len(clusters))


def measure(folder, out, seeds, epochs, crop, n_train, n_tune, n_test):
    files = sorted((folder/'images').glob('*.png'))
    for seed in seeds:
        if all(is_done(out, method=m, seed=seed) for m in METHODS): continue
        rng = np.random.default_rng(seed)
        data = [pasted(*read(files[i]), rng) for i in rng.permutation(len(files))[:n_train+n_tune+n_test]]
        tune, test = data[n_train:n_train+n_tune], data[n_train+n_tune:]
        for kind in ('otsu', *MASKS):
            mine = {m: (split, choices) for m,(of,split,choices) in METHODS.items() if of == kind}
            if all(is_done(out, method=m, seed=seed) for m in mine): continue
            if kind == 'otsu': says, seconds = (lambda part: [otsu(d[0]) for d in part]), 0.
            else:
                model, seconds = train(kind, data[:n_train], epochs, seed, crop)
                says = lambda part: outputs(model, part)
            said = {name: says(part) for name,part in dict(tune=tune, test=test).items()}
            for m,(split,choices) in mine.items():
                scores = lambda c: instance_scores([split(o, c) for o in said['tune']], [d[1] for d in tune])
                best = max(choices, key=lambda c: scores(c)['F1']) if len(choices) > 1 else None
                start = time.process_time()
                preds = [split(o, best) for o in said['test']]
                ms = (time.process_time()-start)/len(test)*1e3
                row = dict(method=m, seed=seed, **instance_scores(preds, [d[1] for d in test]),
                           **found(preds, test), parameter=best, training_seconds=seconds, split_ms=ms)
                add_rows([row], out)
                print(f"{m}, seed {seed}: F1 {row['F1']:.3f}, pairs {row['pairs']:.2f}, {seconds:.0f} s",
                      flush=True)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path)
    p.add_argument('--seeds', type=int, nargs='+', default=[1,2,3])
    p.add_argument('--epochs', type=int, default=10)
    p.add_argument('--crop', type=int, default=96, help='side of the training crops, in pixels')
    p.add_argument('--n', type=int, nargs=3, default=[96,20,60],
                   help='images for training, for choosing parameters, and for the test')
    p.add_argument('--out', type=Path, required=True, help='a CSV file, to which runs are added')
    args = arguments(p)
    measure(args.folder, args.out, args.seeds, args.epochs, args.crop, *args.n)
    df = rows_of(args.out)
    for s in ('F1', 'count_error', 'pairs', 'lone', 'clusters'):
        print(s, spread(df, 'method', s).round(3), sep='\n')
    print(differences(df, 'method', 'mask, watershed', ['F1','pairs']).round(4).to_string(index=False))
