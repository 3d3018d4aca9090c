"""What does smoothing over time bring on a clip, and what does it cost? Does a long clip take more memory?

    nice -n 10 python experiments/feedback/clips.py flicker --out experiments/feedback/flicker.csv
    nice -n 10 python experiments/feedback/clips.py long --out experiments/feedback/long_clip.csv

`flicker`: drawn clips of a camera that stands still, ten frames a second, by day and at night; the network
is that of the chapters. Where the drawing itself (without the camera's noise) is the same as in the frame
before, nothing moved, and a pixel that changes its class there flickers. Mean IoU over all pixels, and
accuracy where the true class is another one than in the frame before, say what is lost.
`long`: a clip of 60 seconds made from street frames, five a second, goes through `predict_video`. Peak memory
above the start, in a process of its own, is compared with that of a clip of six seconds, and every number of
the table with predictions made frame by frame."""
import argparse, copy, csv, sys, tempfile
from pathlib import Path

import numpy as np, pandas as pd, torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import memory_of, record
from run import at_its_scale
from segnb.metrics import ConfusionMatrix
from segnb.model_file import load_model
from segnb.recipe import course_learner
from segnb.streets import develop, moved, random_scene, render, streets
from segnb.video import class_shares, pyav


def still(seed, weather, n, size=(96,128)):
    "Frames of a camera that stands still: images, drawings without noise, masks with void 255"
    scene = random_scene(np.random.default_rng([seed, 5]), weather)
    for t in range(n):
        now = copy.copy(scene)
        now.things = [moved(o, t) for o in scene.things]
        clean, mask = render(now, 0, size).result()
        image = develop(now, clean, mask, np.random.default_rng([seed, t]))
        yield image, clean, np.where(mask == 11, 255, mask)


def smoothed(probs, smooth, fps=10):
    "Class maps from probabilities, as `predict_clip` makes them"
    mean, w = None, np.exp(-1/(fps*smooth)) if smooth else 0
    for p in probs:
        mean = p if mean is None else w*mean+(1-w)*p
        yield mean.argmax(0).numpy()


def judged(maps, cleans, masks):
    "Flicker, mean IoU, accuracy where the true class changed; the first frames count nowhere"
    cm, flips, still_pixels, right, changed = ConfusionMatrix(11), 0, 0, 0, 0
    for k in range(4, len(masks)):
        same = (cleans[k] == cleans[k-1]).all(-1)
        flips, still_pixels = flips+((maps[k] != maps[k-1]) & same).sum(), still_pixels+same.sum()
        new = (masks[k] != masks[k-1]) & (masks[k] != 255)
        right, changed = right+((maps[k] == masks[k]) & new).sum(), changed+new.sum()
        cm.add(maps[k], masks[k])
    return dict(flicker=flips/still_pixels, mean_iou=cm.mean_iou, changed=right/max(changed, 1))


def flicker(model, clips=4, n=16):
    "A row for each weather, clip and time constant"
    for weather in (None, 'night'):
        for seed in range(clips):
            images, cleans, masks = zip(*still(700+seed, weather, n))
            probs = [model.predict_probs(im) for im in images]
            for smooth in (0, .1, .2, .4, .8):
                maps = list(smoothed(probs, smooth))
                about = dict(weather=weather or 'daylight', clip=seed, smooth=smooth)
                yield {**about, **judged(maps, cleans, masks)}


def write_clip(fn, files, n, fps=5):
    "A clip without loss of `n` frames, the files again and again"
    with pyav().open(str(fn), 'w') as out:
        s = out.add_stream('ffv1', rate=fps)
        s.width, s.height, s.pix_fmt = 256, 192, 'bgr0'
        for k in range(n):
            with Image.open(files[k % len(files)]) as im:
                out.mux(s.encode(pyav().VideoFrame.from_image(im.convert('RGB'))))
        out.mux(s.encode())


def long_clip(learn, folder):
    "A row for each length: frames, memory, and how many numbers of the table differ from single predictions"
    model = load_model(learn.save_model(folder/'m.safetensors'), device='cpu')
    files = sorted((streets()/'images').glob('*.png'))
    before = ("from segnb.model_file import load_model\nfrom segnb.video import predict_video\nimport torch\n"
              f"torch.set_num_threads(1)\nm = load_model({str(folder/'m.safetensors')!r}, device='cpu')\n"
              f"predict_video(m, {str(folder/'6.mkv')!r}, {str(folder/'warm')!r}, overwrite=True)")
    for seconds in (6, 60): write_clip(folder/f'{seconds}.mkv', files, 5*seconds)
    for seconds in (6, 60):
        mb = memory_of(before, f"predict_video(m, {str(folder/f'{seconds}.mkv')!r}, {str(folder/'out')!r})",
                       Path(__file__).parent)
        with open(folder/f'out/{seconds}.csv', newline='') as f: rows = list(csv.reader(f))[1:]
        wrong = 0
        for k, row in enumerate(rows):
            with Image.open(files[k % len(files)]) as im: frame = im.convert('RGB')
            mask = model.predict(frame)
            wrong += sum(a != b for a, b in zip(row[2:], map(str, class_shares(mask, 11))))
        yield dict(seconds=seconds, frames=len(rows), peak_mb=mb, numbers=len(rows)*11, different=wrong)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['flicker', 'long'])
    p.add_argument('--out', required=True, help='a CSV file')
    args = p.parse_args()
    torch.set_num_threads(1)
    learn = course_learner()
    if args.what == 'flicker': rows = list(flicker(at_its_scale(learn)))
    else:
        with tempfile.TemporaryDirectory() as tmp: rows = list(long_clip(learn, Path(tmp)))
    record(pd.DataFrame(rows), args.out, index=False)
    print(pd.DataFrame(rows).round(4).to_string())
