"""How many training images a second does the data pipeline make, beside fastai's and torch's?

    python experiments/speed/data.py streets --crop 192 256 --out experiments/speed/data.csv

All get the same frames and make batches of the same size with a random zoom and crop, a rotation up to
ten degrees, a flip and another light. segnb decodes each frame once, before the first epoch. The peers (torch
with torchvision's transforms and with Albumentations) are measured as their documentation has it, each file
opened and decoded anew, and again with all frames decoded in memory beforehand, there with as many worker
processes as cores and with none."""
import argparse, contextlib, os, sys, time, warnings
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np, torch
from fastai.data.transforms import RandomSplitter
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import compare, record, show
from segnb.dataloader import SegDataLoaders
from segnb.dataset import find_pairs
from segnb.recipe import data_path

workers = os.cpu_count()


def images_per_second(dl, n=480):
    "Images a second out of a loader, over whole epochs until there were `n`"
    seen, start = 0, time.perf_counter()
    while seen < n:
        for b in dl: seen += len(b[0])
    return seen/(time.perf_counter()-start)


def held(ds):
    "The share of images for validation, which are not measured: a hundredth, but at least one"
    return max(.01, 1.01/len(ds))


class Decoded(np.ndarray):
    "An image in memory, which knows its mask"
    mask = None


def decoded(ds):
    "All images of a `SegDataset` as arrays (H,W,3) with their masks"
    out = []
    for i in range(len(ds)):
        image = np.array(ds.image(i)).view(Decoded)
        image.mask = ds.mask(i)
        out.append(image)
    return out


def fastai_loader(ds, crop, bs, frames=None, num_workers=workers):
    "fastai's `SegmentationDataLoaders`, on files or on decoded frames"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        from fastai.vision.all import SegmentationDataLoaders, aug_transforms
    files = list(ds.images), dict(zip(ds.images, ds.masks)).get
    items, mask_of = files if frames is None else (frames, attrgetter('mask'))
    dls = SegmentationDataLoaders.from_label_func(
        '.', items, mask_of, codes=ds.codes.codes, bs=bs, valid_pct=held(ds), num_workers=num_workers,
        batch_tfms=aug_transforms(size=crop), device=torch.device('cpu'))
    return dls.train


def torchvision_pipeline(crop):
    "Image and mask, as Pillow images or tensors, to augmented tensors: torchvision's transforms v2"
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    tfm = v2.Compose([v2.RandomRotation(10),
                      v2.RandomResizedCrop(crop, scale=(.5, 1), ratio=(.9, 1.1), antialias=True),
                      v2.RandomHorizontalFlip(),
                      v2.ColorJitter(.2, .2)])
    return lambda image, mask: tfm(tv_tensors.Image(image), tv_tensors.Mask(mask))


def albumentations_pipeline(crop):
    "The same by Albumentations, from Pillow images"
    os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')  # or it asks the network for its newest version
    import albumentations as A
    tfm = A.Compose([A.Rotate((-10, 10), p=1),
                     A.RandomResizedCrop(crop, scale=(.5, 1), ratio=(.9, 1.1)),
                     A.HorizontalFlip(),
                     A.RandomBrightnessContrast(p=1)])
    def pipeline(image, mask):
        out = tfm(image=np.asarray(image), mask=np.asarray(mask))
        return torch.from_numpy(out['image']).permute(2,0,1), torch.from_numpy(out['mask'])
    return pipeline


class Files(torch.utils.data.Dataset):
    "Pairs opened, decoded and augmented one at a time"
    def __init__(self, ds, pipeline): self.ds, self.pipeline = ds, pipeline
    def __len__(self): return len(self.ds)
    def pair(self, i): return Image.open(self.ds.images[i]).convert('RGB'), Image.open(self.ds.masks[i])
    def __getitem__(self, i):
        x, y = self.pipeline(*self.pair(i))
        return x.float()/255, y.squeeze().long()


class InMemory(Files):
    "Pairs from a list of decoded tensors, augmented one at a time"
    def __init__(self, frames, pipeline):
        chw = lambda image: torch.from_numpy(np.asarray(image)).permute(2,0,1).contiguous()
        super().__init__([(chw(o), torch.from_numpy(np.array(o.mask))) for o in frames], pipeline)
    def pair(self, i): return self.ds[i]


def torch_loader(dataset, bs, num_workers=workers):
    "torch's `DataLoader`"
    several = dict(persistent_workers=True, multiprocessing_context='fork') if num_workers else {}
    return torch.utils.data.DataLoader(dataset, bs, shuffle=True, drop_last=True, num_workers=num_workers,
                                       **several)


def peers(ds, crop, bs):
    "Name to loader: what one would otherwise use, as far as it is installed"
    tv, frames = torchvision_pipeline(crop), decoded(ds)
    out = {'fastai': fastai_loader(ds, crop, bs),
           'torch, torchvision v2': torch_loader(Files(ds, tv), bs)}
    with contextlib.suppress(ImportError):
        out['torch, Albumentations'] = torch_loader(Files(ds, albumentations_pipeline(crop)), bs)
    for n in (workers, 0):
        where = f'in memory, {n} workers'
        out[f'fastai, {where}'] = fastai_loader(ds, crop, bs, frames, n)
        out[f'torch, torchvision v2, {where}'] = torch_loader(InMemory(frames, tv), bs, n)
    return out


def measure(path, crop=None, bs=8, rounds=3, n=480):
    "Training images a second, and how many times as many segnb makes"
    ds, _ = find_pairs(path)
    if len(ds) < bs: raise ValueError(f"{path}: {len(ds)} pairs do not make a batch of {bs}")
    crop = tuple(crop or ds[0][1].shape)
    split = RandomSplitter(held(ds), seed=1)
    ours = SegDataLoaders.from_dataset(ds, split, crop, bs, device='cpu', max_rotate=10)
    loaders = {'segnb': ours.train, **peers(ds, crop, bs)}
    return compare({k: partial(images_per_second, dl, n) for k, dl in loaders.items()}, rounds)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?', default='streets', help='a folder with pairs of one size, or a name')
    p.add_argument('--crop', type=int, nargs=2, metavar=('H','W'), help="default: the frames' own size")
    p.add_argument('--bs', type=int, default=8)
    p.add_argument('--rounds', type=int, default=5)
    p.add_argument('--images', type=int, default=480, help='a round')
    p.add_argument('--out', help='a CSV file')
    args = p.parse_args()
    df = measure(data_path(args.data), args.crop, args.bs, args.rounds, args.images)
    show(df, 1)
    if args.out: record(df, args.out)
