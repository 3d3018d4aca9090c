"""What does a recipe come to on a drive that it has not seen?

    python experiments/clips/run.py CAMVID --seed 1 --work FOLDER --out experiments/clips/clips.csv

CamVid is three drives, and its validation frames lie between training frames of one of them (0016E5). Here
each drive is left out in turn, the validation frames being part of theirs: the recipe of `segnb train`
trains on all frames of the other two and is judged on every frame of the third. The three confusion
matrices are added, so that each frame is judged once, by a network that has not seen its drive.

Criterion, fixed beforehand: mean IoU and pixel accuracy of the sum of the three matrices, at the end of the
last epoch. Recipes are compared by it, paired by seed; three drives say little of the spread over drives,
so each drive's own scores stand beside it.

clips.csv has the matrices, a row for each recipe, drive, views and true class with the pixels of each
predicted class; clips_scores.csv what they come to, with a row `all` where the three are there. A run that
was interrupted goes on: drives that are in the table are not trained again, checkpoints and networks are
kept in FOLDER, and a network that is there can be judged with other views. Two processes may share the work
with --clips. With the views `standardised` a trained network gets its images with the mean and deviation of
the average training image. --clips valid is CamVid's own split, to see what a change does there. Ideas are
looked at first in short runs on small frames, in a table of their own:

    python experiments/clips/run.py CAMVID --size 180 240 --epochs 10 --views none --change perspective \
        --work FOLDER --out experiments/clips/screen.csv"""
import argparse, shutil, sys, time
from functools import partial
from pathlib import Path

import pandas as pd, torch
from fastai.torch_core import set_seed
from fastai.vision.core import TensorImage
from torchvision.transforms.v2.functional import gaussian_blur

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import add_rows, is_done, own_split, rows_of
from segnb.core import atomic_file
from segnb.dataloader import SegDataLoaders
from segnb.dataset import ClipSplitter
from segnb.metrics import ConfusionMatrix
from segnb.model_file import load_model
from segnb.learner import seg_learner, seg_splitter
from segnb.recipe import ENCODER, ValidateEvery, data_path, train_recipe
from segnb.streets import streets
from segnb.tta import TTA, Wrapper, as_probs
from segnb.unet import EncoderUNet

CLIPS = ('0001TP', '0006R0', '0016E5')
# what a change gives to the loaders; of those without values, each is a function or a line below
CHANGES = {'none': {}, 'perspective': dict(max_warp=.2), 'elastic': dict(elastic=4.),
           'lighting': dict(max_lighting=.4), 'zoom': dict(zoom=(.5, 2.)), 'rotation': dict(max_rotate=10),
           'standardised': dict(standardize=True), 'camera': {}, 'drawn': {}, 'styles': {}, 'two groups': {}}
# how many stages of the encoder keep their weights; the recipe's are 2, and there are 5
FROZEN = {'unfrozen': 0, 'three frozen': 3, 'four frozen': 4, 'frozen': 5}
CHANGES |= {k: {} for k in FROZEN}
recipe = ['data', 'model', 'opt', 'lr', 'epochs', 'size', 'seed', 'change', 'views']


def camera(x):
    "Images as another camera has them: gamma, a cast of each colour, blur in a third, noise"
    n, device = len(x), x.device
    gamma, cast = torch.exp(.3*torch.randn(n, 1, 1, 1)), torch.exp(.1*torch.randn(n, 3, 1, 1))
    blurred, sigma, noise = torch.rand(n) < 1/3, torch.empty(n).uniform_(.5, 1.5), torch.rand(n, 1, 1, 1)*.05
    x = x.clamp(0, 1)**gamma.to(device) * cast.to(device)
    for i in blurred.nonzero().flatten().tolist(): x[i] = gaussian_blur(x[i], 9, sigma[i].item())
    return (x + noise.to(device)*torch.randn_like(x)).clamp(0, 1)


def with_camera(augment):
    "An augmentation whose crops get `camera` as well"
    def changed(b):
        x, y = augment(b)
        return TensorImage(camera(x.as_subclass(torch.Tensor))), y
    return changed


def drawn_first(encoder, classes, size, epochs, lr, **kwargs):
    "A network that has learned the same classes from drawn streets, in as many epochs (of 240 images)"
    dls = SegDataLoaders.from_path(streets(), size=size, **kwargs)
    assert list(dls.classes) == list(classes)
    return train_recipe(dls, epochs, lr, encoder, validate_every=epochs, bars=False).model


def mixed_style(x):
    """MixStyle (Zhou et al., 2021, section 3.2) in half of the steps: the features of an image get a mix, in
    random shares, of their own mean and deviation and those of another image of the batch"""
    if torch.rand(1) < .5: return x
    mean, std = x.mean((2,3), keepdim=True), x.std((2,3), keepdim=True)+1e-6
    mean, std = mean.detach(), std.detach()
    own = torch.distributions.Beta(.1, .1).sample((len(x), 1, 1, 1)).to(x)
    other = torch.randperm(len(x))
    return (x-mean)/std*(own*std+(1-own)*std[other])+own*mean+(1-own)*mean[other]


def changed_network(kinds, classes, encoder, *drawn, **kwargs):
    "The network of a run, or the name of its encoder where nothing is changed"
    if 'drawn' in kinds:
        assert not kinds & {*FROZEN, 'styles'}, "drawn streets are for the recipe's network"
        return drawn_first(encoder, classes, *drawn, **kwargs)
    if not kinds & {*FROZEN, 'styles'}: return encoder
    net = EncoderUNet(len(classes), encoder)
    net.freeze_stages(next((n for k, n in FROZEN.items() if k in kinds), 2))
    parts, after = dict(net.encoder.named_modules()), net.encoder.feature_info.module_name()[1:3]
    for name in after if 'styles' in kinds else ():         # at a quarter and an eighth of the image's size
        parts[name].register_forward_hook(lambda module, _, x: mixed_style(x) if net.training else x)
    return net


class Standardised(Wrapper):
    "A trained network that gets its images with the mean and deviation of the average training image"
    def __init__(self, model, train):
        super().__init__(model)
        images = [train[i][0]/255 for i in range(len(train))]
        self.mean, self.std = (torch.stack([f(x, (1,2)) for x in images]).mean(0).view(-1,1,1)
                               for f in (torch.mean, torch.std))
    def forward(self, x):
        x = x.as_subclass(torch.Tensor)
        x = (x-x.mean((2,3), keepdim=True))/(x.std((2,3), keepdim=True)+.01)*self.std+self.mean
        return self.members[0](x.clamp(0, 1))


def two_groups(model):
    "Encoder, and decoder with head: the decoder, which starts at random, learns as fast as the head"
    encoder, decoder, head = seg_splitter(model)
    return [encoder, decoder+head]


def trained(dls, file, encoder, epochs, lr, change):
    "The network of a file; trained, from its last checkpoint, where there is none"
    if not file.exists():
        work, start = file.with_suffix('.training'), time.process_time()
        if callable(encoder): encoder = encoder()
        if 'two groups' in change:
            learn = seg_learner(dls, encoder, splitter=two_groups, cbs=ValidateEvery(epochs))
            with learn.no_bar(): learn.fit_one_cycle(epochs, slice(lr/3, lr), resume=work)
        else: learn = train_recipe(dls, epochs, lr, encoder, validate_every=epochs, bars=False, resume=work)
        print(f'{time.process_time()-start:.0f} core seconds', flush=True)
        learn.save_model(file)
        shutil.rmtree(work, ignore_errors=True)
    return as_probs(load_model(file))


def matrix(model, dl, classes):
    "The confusion matrix of a model over a set"
    cm = ConfusionMatrix(classes=classes)
    for x, y in dl: cm.add(model(x), y)
    return cm


def network_file(work, model, lr, epochs, size, seed, change, clip, **_):
    "Where the network of a training run is kept"
    return Path(work)/f'{model}_{lr}_{epochs}_{size}_{seed}_{change}_{clip}.safetensors'


def measure(path, out, work, encoder=ENCODER, epochs=30, lr=4e-3, seed=1, size=None, change='none',
            views=('none', 'flip'), clips=CLIPS):
    "Eleven rows for each clip and kind of views"
    ds, split = own_split(path)
    if size: ds = ds.at_size(size)
    h, w = ds.size or ds.file_sizes[0]
    kinds = set(change.split('+'))
    asked = {k: v for kind in kinds for k, v in CHANGES[kind].items()}
    for clip in clips:
        run = dict(data=Path(path).name, model=encoder, opt='adam', lr=lr, epochs=epochs, size=f'{h}x{w}',
                   seed=seed, change=change, clip=clip)
        todo = [v for v in views if not is_done(out, **run, views=v)]
        if not todo: continue
        set_seed(seed)
        how = split if clip == 'valid' else ClipSplitter([clip])
        dls = SegDataLoaders.from_dataset(ds, how, **asked)
        if 'camera' in kinds: dls.train.augment = with_camera(dls.train.augment)
        light = {k: v for k, v in asked.items() if k == 'standardize'}
        network = partial(changed_network, kinds, dls.classes, encoder, (h,w), epochs, lr, **light)
        file = network_file(work, **run)
        file.parent.mkdir(parents=True, exist_ok=True)
        model = trained(dls, file, network, epochs, lr, change)
        for v in todo:
            seen, steps = model, set(v.split())                     # standardised first, then its views
            if 'standardised' in steps: seen = Standardised(seen, dls.train_ds)
            for kind in steps-{'standardised', 'none'}: seen = TTA(seen, kind)
            cm = matrix(seen, dls.valid, dls.classes)
            add_rows([dict(run, views=v, frames=len(dls.valid_ds), true=c, **dict(zip(cm.classes, row)))
                      for c, row in zip(cm.classes, cm.matrix.tolist())], out)
            print(f'{run}, views {v}: mean IoU {cm.mean_iou:.3f}, accuracy {cm.pixel_acc:.3f}', flush=True)


def scores(out):
    "A row for each recipe and clip, and one for all three together"
    df, rows = rows_of(out), []
    for about, part in df.groupby(recipe, sort=False):
        classes = list(part['true'].unique())
        counts = {c: torch.tensor(g.set_index('true').loc[classes, classes].to_numpy())
                  for c, g in part.groupby('clip', sort=False)}
        if set(CLIPS) <= set(counts): counts['all'] = sum(counts[c] for c in CLIPS)
        for clip, m in counts.items():
            cm = ConfusionMatrix(classes=classes)
            cm.matrix = m
            seen = part[part['clip'].isin(CLIPS)] if clip == 'all' else part[part['clip'] == clip]
            frames = int(seen.groupby('clip').frames.first().sum())
            rows.append(dict(zip(recipe, about), clip=clip, frames=frames,
                             mean_iou=cm.mean_iou, pixel_acc=cm.pixel_acc,
                             **{f'IoU {c}': float(v) for c, v in zip(classes, cm.iou)}))
    return pd.DataFrame(rows)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='camvid', help='a folder with CamVid')
    p.add_argument('--encoder', default=ENCODER)
    p.add_argument('--epochs', type=int, default=30)
    p.add_argument('--lr', type=float, default=4e-3)
    p.add_argument('--seed', type=int, default=1)
    p.add_argument('--size', type=int, nargs=2, metavar=('H','W'), help='resize the frames')
    p.add_argument('--change', default='none', help=f"to the recipe: of {', '.join(CHANGES)}; 'a+b' is both")
    p.add_argument('--views', nargs='+', default=['none', 'flip'], help='of `segnb.tta`, or standardised')
    p.add_argument('--clips', nargs='+', default=CLIPS, choices=[*CLIPS, 'valid'],
                   help="only leave out these; 'valid': CamVid's own split")
    p.add_argument('--work', required=True, help='a folder for checkpoints and networks')
    p.add_argument('--out', required=True, help='a CSV file, to which runs are added')
    args = p.parse_args()
    if not set(args.change.split('+')) <= set(CHANGES): p.error(f"--change {args.change}: see --help")
    measure(data_path(args.data), args.out, args.work, args.encoder, args.epochs, args.lr, args.seed,
            args.size, args.change, args.views, args.clips)
    df, out = scores(args.out), Path(args.out)
    with atomic_file(out.with_stem(f'{out.stem}_scores')) as tmp:
        df.to_csv(tmp, float_format='%.5g', index=False)
    print(df.drop(columns=[c for c in df if c.startswith('IoU')]).round(3).to_string(index=False))
