"""What once led to wrong labels or lost work without a word: each now has an error, a warning, or the right answer."""
import gc
import shutil
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn as nn
from PIL import Image

from conftest import segnb
from segnb.all import (Codes, SegDataLoader, SegDataLoaders, SegDataset, SegLearner, Tiled, UNet, check_data, seg_learner,
                       find_pairs, load_model)
from segnb.cli import main
from segnb.frames import Frames
from segnb.draw import error_image
from segnb.model_file import SegModel

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def make_set(path, masks, image=None, codes=None):
    "A folder of images and masks; `masks` are PIL images, arrays, or pairs of index array and palette"
    for d in ("images", "masks"): (path / d).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i, m in enumerate(masks):
        palette = None
        if isinstance(m, tuple): m, palette = m
        im = Image.fromarray(np.asarray(m))
        if palette: im.putpalette([v for c in palette for v in c])
        im.save(path / f"masks/{i}.png")
        pic = rng.integers(0, 256, (*np.shape(m)[:2], 3), dtype=np.uint8) if image is None else image(i)
        (pic if isinstance(pic, Image.Image) else Image.fromarray(pic)).save(path / f"images/{i}.png")
    if codes: (path / "codes.txt").write_text("\n".join(codes))
    return path


def halves(a, b, size=(32, 32), dtype=np.uint8):
    m = np.full(size, a, dtype)
    m[:, size[1] // 2:] = b
    return m


def one_warning(found, text):
    said = [str(w.message) for w in found if text in str(w.message)]
    assert len(said) == 1, [str(w.message) for w in found]
    return said[0]


def kinds(report): return {f.kind: f for f in report.findings}


# Wrong labels, wrong predictions

def test_1_palette_colours_are_looked_up_or_refused(tmp_path):
    "The same scene saved twice by a program that orders its palette by first appearance"
    p = make_set(tmp_path / "d", [(halves(0, 1), [RED, GREEN]), (halves(0, 1), [GREEN, RED]), np.array(Image.fromarray(halves(0, 1)).convert("RGB"))*0
                                  + np.where(halves(0, 1)[..., None], np.uint8(GREEN), np.uint8(RED))])
    ds, _ = find_pairs(p, codes=["wall", "road"], colors=[RED, GREEN])
    assert [ds[i][1][0, [0, -1]].tolist() for i in range(3)] == [[0, 1], [1, 0], [0, 1]]
    assert check_data(p, ["wall", "road"], [RED, GREEN]).ok

    (p / "masks/2.png").unlink(); (p / "images/2.png").unlink()
    ds, _ = find_pairs(p, codes=["wall", "road"])
    with pytest.raises(ValueError, match=r"1\.png: index 0 is the colour \(0, 255, 0\) .*0\.png.*colors="): [ds[i] for i in range(2)]
    with pytest.raises(ValueError, match="pass colors="): Frames(ds)
    report = check_data(p, ["wall", "road"])
    assert not report.ok and "0.png" in kinds(report)["palettes differ"].detail


def test_1_a_grey_mask_with_colours_is_looked_up_as_well(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 255)])
    ds, _ = find_pairs(p, codes=["wall", "road"], colors=[BLACK, (255, 255, 255)])
    assert ds[0][1].unique().tolist() == [0, 1]
    ds, _ = find_pairs(p, codes=["wall", "road"], colors=[BLACK, RED])
    with pytest.raises(ValueError, match=r"0\.png: colours that are not in the colour table: \(255,255,255\)"): ds[0]


def test_2_two_codes_and_0_and_255(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 255)] * 4, codes=["background", "nucleus"])
    with pytest.warns(UserWarning, match="255 is taken for 'nucleus'.*pass void=255"): ds, _ = find_pairs(p)
    assert ds[0][1].unique().tolist() == [0, 1] and ds.codes.values == [0, 255]
    with pytest.warns(UserWarning, match="255 is taken for 'nucleus'"):
        dls = SegDataLoaders.from_label_func(tmp_path, ds.images, lambda o: p / "masks" / o.name, ["background", "nucleus"], crop=(32, 32), bs=1, valid_pct=.5)
    assert dls.train_ds.counts.sum(0).min() > 0
    report = check_data(p)
    assert report.ok and "nucleus" in kinds(report)["two codes, 0 and 255"].detail


def test_2_void_where_it_is_asked_for_is_told_when_a_class_is_left_without_pixels(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 255)] * 4, codes=["background", "nucleus"])
    with pytest.warns(UserWarning) as found: dls = SegDataLoaders.from_path(p, crop=(32, 32), bs=1, void=255, split=lambda f: ([0, 1], [2, 3]))
    said = one_warning(found, "no pixel of nucleus")
    assert "50.0% of their pixels are void [255]" in said and "values=" in said and dls.codes.void_values == [255]
    report = check_data(p, void=255)
    assert not report.ok and kinds(report)["class never trained"].detail == "nucleus"


def test_2_255_stays_void_where_every_code_has_its_pixels(tmp_path):
    m = halves(0, 1); m[0] = 255
    p = make_set(tmp_path / "d", [m] * 4, codes=["background", "nucleus"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds, _ = find_pairs(p)
    assert ds[0][1].unique().tolist() == [0, 1, 255]


def dots(n=4):
    "A network that looks at single pixels"
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, n, 1))


def noise(h, w): return np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_3_a_large_image_is_predicted_at_the_scale_of_training():
    codes, x = Codes(list("abcd")), noise(400, 300)
    exact = SegModel(dots(), codes, half=False).predict(x)
    model = SegModel(dots(), codes, size=(64, 64), scale=1, half=False)
    assert (model.predict(x) == exact).mean() > .999
    assert (model.predict(x, scale="fit") == exact).mean() < .9                 # what it was, for those who want it
    assert model.tile_for((400, 300)) == (256, 256) and model.tile_for((128, 128)) is None


def test_3_models_without_a_scale_say_what_they_do():
    model, x = SegModel(dots(), Codes(list("abcd")), size=(64, 64), half=False), noise(400, 300)
    with pytest.warns(UserWarning, match="400x300 is shrunk to the area of a training frame .64x64.*scale=1"): model.predict(x)


def test_3_tiles_of_a_model_trained_at_half_size_are_at_half_size():
    codes, x = Codes(list("abcd")), noise(400, 300)
    model = SegModel(dots(), codes, size=(64, 64), scale=.5, half=False)
    whole = model.predict(x, tile=0)
    for tiles in (model, Tiled(model, 64)): assert (tiles.predict(x) == whole).mean() > .999
    assert (SegModel(dots(), codes, half=False).predict(x) == whole).mean() < .9
    with pytest.raises(ValueError, match=r"scale=\[0, 0\]"): model.predict(x, scale=0)


def test_3_tiles_take_little_memory():
    from segnb.core import peak_memory
    model, x = SegModel(dots(20), Codes([f"c{i}" for i in range(20)]), size=(128, 128), scale=.5, half=False), noise(6000, 1200)
    model.predict(x[:1200])
    peaks = []
    for rows in (1200, 6000):
        with peak_memory() as mb: assert model.predict(x[:rows]).shape == (rows, 1200)
        peaks.append(mb[-1])
    assert peaks[1] - peaks[0] < 120, peaks                                     # probabilities of 4800 rows more are 460 MB


def test_3_the_model_file_knows_the_scale(small_set, tmp_path):
    dls = SegDataLoaders.from_path(small_set, size=(48, 64), crop=(32, 32), bs=4, device="cpu")
    learn = SegLearner(dls, UNet(3, 11, width=4, depth=2, pad=True))
    assert load_model(learn.save_model(tmp_path / "m.safetensors"), "cpu").scale == (.5, .5)


def test_4_camvids_names_only_where_its_numbers_occur(tmp_path):
    for side in ("train", "val"):
        for d in (side, side + "annot"): (tmp_path / d).mkdir()
        for i in range(3):
            Image.fromarray(noise(32, 32)).save(tmp_path / side / f"{i}.png")
            Image.fromarray(halves(1, 3)).save(tmp_path / f"{side}annot" / f"{i}.png")
    assert find_pairs(tmp_path)[0].classes == ["class 0", "class 1", "class 2", "class 3"]
    m = halves(0, 11); m[0, :11] = range(11)
    Image.fromarray(m).save(tmp_path / "valannot/2.png")                        # one mask has them all
    assert find_pairs(tmp_path)[0].classes[:3] == ["Sky", "Building", "Pole"]


def test_4_ten_of_sixteen_bits(tmp_path):
    deep = lambda i: Image.fromarray(np.linspace(0, 1000 + i, 32 * 32).reshape(32, 32).astype(np.uint16))
    p = make_set(tmp_path / "d", [halves(0, 1)] * 4, deep)
    with pytest.warns(UserWarning) as found: SegDataLoaders.from_path(p, crop=(32, 32), bs=1, split=lambda f: ([0, 1], [2, 3]))
    assert "highest value is 1001" in one_warning(found, "nearly black") and "range=(0, 1023)" in one_warning(found, "nearly black")
    report = check_data(p)
    assert report.ok and "1003: range=(0, 1023)" in kinds(report)["few of 16 bits"].detail
    dls = SegDataLoaders.from_path(p, crop=(32, 32), bs=1, range=(0, 1023), split=lambda f: ([0, 1], [2, 3]))
    assert dls.train_ds[0][0].max() > 248
    learn = SegLearner(dls, UNet(3, 2, width=4, depth=2, pad=True))
    model = load_model(learn.save_model(tmp_path / "m.safetensors"), "cpu")
    assert model.range == (0, 1023)                                              # predictions read images as training did
    seen = []
    model.probs = lambda x, *a: seen.append(x.max().item()) or torch.rand(1, 2, 32, 32)
    model.predict(p / "images/0.png")
    assert seen[0] > .97


def test_4_a_fourth_band_is_told(tmp_path):
    bands = lambda i: Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 4), dtype=np.uint8))
    p = make_set(tmp_path / "d", [halves(0, 1)] * 4, bands)
    with pytest.warns(UserWarning) as found: SegDataLoaders.from_path(p, crop=(32, 32), bs=1, split=lambda f: ([0, 1], [2, 3]))
    assert ".png has a fourth channel that varies" in one_warning(found, "fourth channel")
    assert kinds(check_data(p))["a fourth channel"].level == "warn"
    opaque = make_set(tmp_path / "e", [halves(0, 1)] * 4, lambda i: Image.fromarray(noise(32, 32)).convert("RGBA"))
    assert "a fourth channel" not in kinds(check_data(opaque))


def test_5_an_exact_copy_on_one_side(small_set, tmp_path):
    p = shutil.copytree(small_set, tmp_path / "d")
    held = (p / "valid.txt").read_text()
    a, b = [f for f in sorted((p / "images").iterdir()) if f.stem not in held and f.name not in held][:2]
    assert "same image twice" not in kinds(check_data(p))
    shutil.copy(a, b)
    found = kinds(check_data(p))["same image twice"]
    assert found.level == "note" and f"{b.name} is {a.name}" in found.detail


def few(path, n=12, **kwargs):
    return SegDataLoaders.from_path(make_set(path, [halves(0, 1)] * n), **{"crop": (32, 32), "bs": 4, "device": "cpu", **kwargs})


def small_learner(dls, **kwargs): return SegLearner(dls, UNet(3, len(dls.classes), width=4, depth=2, pad=True, norm=True), **kwargs)


def quietly(learn, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(*args, **kwargs)


def test_6_three_steps_an_epoch(tmp_path):
    learn = small_learner(few(tmp_path / "d", 15))
    with pytest.warns(UserWarning, match="2 epochs of 3 batches are only 6 training steps.* 100 epochs"): quietly(learn, 2, 1e-3)


def test_6_the_command_trains_a_small_set_for_longer(tmp_path):
    from fastai.callback.core import Callback, CancelFitException
    from segnb.recipe import train_recipe

    class Stop(Callback):
        def before_batch(self): raise CancelFitException

    dls = SegDataLoaders.from_path(make_set(tmp_path / "d", [halves(0, 1)] * 15), crop=(32, 32), bs=4, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn = train_recipe(dls, encoder="resnet10t", pretrained=False, cbs=[Stop()], bars=False)
    assert learn.n_epoch == 100 and len(learn.dls.train) == 3


@pytest.mark.parametrize("args, why", [(("--lr", -1), "--lr -1.0: it must be above 0"), (("--epochs", 0), "--epochs 0: it must be above 0"),
                                       (("--bs", 0), "--bs 0: it must be above 0")])
def test_7_numbers_that_cannot_be(small_set, tmp_path, args, why):
    run = segnb("train", small_set, "--out", tmp_path / "m.safetensors", *args)
    assert run.returncode == 2 and why in run.stderr and not list(tmp_path.iterdir())


def test_7_numbers_that_cannot_be_in_python(tmp_path):
    dls = few(tmp_path / "d")
    with pytest.raises(ValueError, match="a learning rate of -1"): quietly(small_learner(dls), 1, -1)
    with pytest.raises(ValueError, match="0 epochs"): quietly(small_learner(dls), 0, 1e-3)
    for kwargs in (dict(bs=0), dict(bs=2, val_bs=0)):
        with pytest.raises(ValueError, match="a batch holds at least one image"): SegDataLoaders.from_path(tmp_path / "d", **kwargs)


class NaNInValidation(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 2, 1)
    def forward(self, x): return self.c(x) * (1. if self.training else float("nan"))


def test_7_a_validation_loss_that_is_no_number(tmp_path):
    learn = SegLearner(few(tmp_path / "d"), NaNInValidation())
    with pytest.warns(UserWarning, match="the validation loss of epoch 1 is nan"): quietly(learn, 1, 1e-3)


def test_7_going_on_with_another_seed(tmp_path):
    from segnb.all import Checkpoint
    dls = few(tmp_path / "d")
    quietly(small_learner(dls), 1, 1e-3, resume=Checkpoint(tmp_path / "run", about=dict(seed=1)))
    with pytest.raises(ValueError, match=r"What differs: seed \(1 then, 2 now\)"):
        quietly(small_learner(dls), 1, 1e-3, resume=Checkpoint(tmp_path / "run", about=dict(seed=2)))


def test_7_the_command_refuses_to_go_on_with_another_seed(small_set, tmp_path):
    import signal
    import subprocess
    import sys
    args = [sys.executable, "-m", "segnb.cli", "train", str(small_set), "--out", str(tmp_path / "m.safetensors"), "--epochs", "9", "--crop", "64", "64", "--bs", "4"]
    p = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    for line in p.stdout:
        if line.startswith("epoch   2/9"): break
    p.send_signal(signal.SIGINT); p.communicate(timeout=120)
    again = segnb(*args[3:], "--resume", "--seed", 2)
    assert again.returncode == 2 and "seed (1 then, 2 now)" in again.stderr
    again = segnb(*args[3:], "--resume", "--frozen", 5, "--standardize")
    assert again.returncode == 2 and "frozen (2 then, 5 now)" in again.stderr and "standardize (False then, True now)" in again.stderr


def test_7_one_mask_for_all(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 5)
    files = sorted((p / "images").iterdir())
    with pytest.raises(ValueError, match=r"0\.png is the mask of all 5 images"):
        SegDataLoaders.from_label_func(p, files, lambda o: p / "masks/0.png", ["a", "b"])
    with pytest.warns(UserWarning, match="5 images have only 2 masks"):
        SegDataset(files, [p / f"masks/{min(1, i)}.png" for i in range(5)], Codes(["a", "b"]))


def test_7_an_empty_validation_set(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 3)
    with pytest.raises(ValueError, match="the split of 3 images leaves 3 for training and 0 for validation"): SegDataLoaders.from_path(p)


def table(p): return pd.DataFrame(dict(image=[f"images/{i}.png" for i in range(5)], mask=[f"masks/{i}.png" for i in range(5)], valid=["train"]*3 + ["valid"]*2))


def test_7_tables(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 5)
    df, kwargs = table(p), dict(path=p, codes=["a", "b"], bs=1)
    with pytest.raises(ValueError, match=r"column 'valid' holds \['train', 'valid'\]"): SegDataLoaders.from_df(df, valid_col="valid", **kwargs)
    with pytest.raises(ValueError, match="no column 'is_valid'; its columns are image, mask, valid"): SegDataLoaders.from_df(df, valid_col="is_valid", **kwargs)
    with pytest.raises(ValueError, match="no column 'label'"): SegDataLoaders.from_df(df, mask_col="label", **kwargs)
    with pytest.raises(ValueError, match="codes=None: say what"): SegDataLoaders.from_df(df, path=p, bs=1)
    for col in (df.valid == "valid", [0, 0, 0, 1, 1]):
        dls = SegDataLoaders.from_df(df.assign(valid=col), valid_col="valid", **kwargs)
        assert (len(dls.train_ds), len(dls.valid_ds)) == (3, 2)
    df.loc[1, "mask"] = "masks/nosuch.png"
    with pytest.raises(FileNotFoundError, match=r"nosuch.png: no such file; column 'mask' gives it as the mask of .*1\.png"): SegDataLoaders.from_df(df, **kwargs)


def test_7_label_functions(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 5)
    files = sorted((p / "images").iterdir())
    with pytest.raises(ValueError, match=r"label_func gives no mask for .*0\.png: it returned None"):
        SegDataLoaders.from_label_func(p, files, lambda o: None, ["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"0_P\.png: no such file; label_func gives it as the mask of .*0\.png"):
        SegDataLoaders.from_label_func(p, files, lambda o: p / "masks" / f"{o.stem}_P.png", ["a", "b"])


@pytest.mark.parametrize("text, why", [("0 sky\n1 road\n", "the lines begin with numbers"), ("sky,road,car\n", "several names on one line"), ("0: sky\n1: road", "the lines begin with numbers")])
def test_7_files_of_codes(tmp_path, text, why):
    (tmp_path / "codes.txt").write_text(text)
    with pytest.raises(ValueError, match=f"codes.txt: {why}"): Codes(tmp_path / "codes.txt")


def test_7_names_may_hold_numbers(tmp_path):
    (tmp_path / "codes.txt").write_text("background\n3 wheeler\n")
    assert Codes(tmp_path / "codes.txt").classes == ["background", "3 wheeler"]


def test_7_a_whole_number_is_a_square(tmp_path):
    dls = few(tmp_path / "d", size=64, crop=32)
    assert dls.train.one_batch()[0].shape[-2:] == (32, 32) and dls.valid.one_batch()[0].shape[-2:] == (64, 64)


# Lost or broken

class Scripted:
    "Scores by the script instead of a real metric"
    def __init__(self, values): self.values = values
    def __call__(self, x, y): return torch.tensor(self.values.pop(0))


def test_8_a_worse_epoch_does_not_replace_the_best_after_a_kill(tmp_path, monkeypatch):
    from fastai.metrics import AvgMetric
    from segnb.all import Checkpoint
    dls = few(tmp_path / "d", 8)

    def mean_iou_of(*values):
        values = list(values)
        def mean_iou(x, y): return torch.tensor(values.pop(0))
        return AvgMetric(mean_iou)

    class Killed(BaseException): pass
    real, calls = Checkpoint._save, []
    def dies(self, done):
        calls.append(done)
        if done == 2 and self.best_value == pytest.approx(.8): raise Killed      # after the best of epoch 2 was kept
        real(self, done)
        if done == 2: self.dies_next = True
    real_best = Checkpoint._keep_best
    def best(self):
        real_best(self)
        if getattr(self, "dies_next", False): raise Killed                       # or, the other way about, after the state was written
    monkeypatch.setattr(Checkpoint, "_save", dies); monkeypatch.setattr(Checkpoint, "_keep_best", best)
    with pytest.raises(Killed): quietly(small_learner(dls, metrics=[mean_iou_of(.5, .8)]), 4, 1e-3, resume=tmp_path / "run")
    monkeypatch.setattr(Checkpoint, "_save", real); monkeypatch.setattr(Checkpoint, "_keep_best", real_best)
    assert load_model(tmp_path / "run/best.safetensors").info["mean_iou"] == pytest.approx(.8)
    quietly(small_learner(dls, metrics=[mean_iou_of(.6, .7, .65)]), 4, 1e-3, resume=tmp_path / "run")
    assert load_model(tmp_path / "run/best.safetensors").info["mean_iou"] == pytest.approx(.8)


class Hungry(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 2, 1)
    def forward(self, x): raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


def test_9_no_memory_before_any_training(tmp_path):
    learn = SegLearner(few(tmp_path / "d"), Hungry())
    with pytest.raises(MemoryError, match="a validation batch of .* does not fit into memory. What takes less: val_bs="), learn.no_bar(): learn.validate()


def test_9_no_memory_while_loading(model_file, monkeypatch):
    def full(*args, **kwargs): raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(MemoryError, match="does not fit into memory .* device='cpu'"): load_model(model_file)


def test_10_logits_are_let_go_of(tmp_path):
    from segnb.all import seg_metrics
    learn, kept = small_learner(few(tmp_path / "d"), metrics=seg_metrics(classes=["class 0", "class 1"])), []
    from fastai.callback.core import Callback
    class Watch(Callback):
        order = 99
        def after_batch(self): kept.append(weakref.ref(self.learn.pred))
    learn.add_cb(Watch())
    quietly(learn, 1, 1e-3)
    gc.collect()
    assert kept and all(r() is None for r in kept)
    assert learn.metrics[0].cm.matrix.sum() == len(learn.dls.valid_ds) * 32 * 32  # each pixel counted once for both scores


def test_11_half_precision_can_be_taken_off(tmp_path):
    from segnb.training import Bfloat16
    learn = small_learner(few(tmp_path / "d"), precision="bf16")
    learn.remove_cb(Bfloat16)
    assert not learn.half
    quietly(learn, 1, 1e-3)
    assert not torch.is_autocast_enabled("cpu")


def test_11_fastais_mixed_precision_beside_it(tmp_path):
    from fastai.callback.fp16 import MixedPrecision
    learn, seen = small_learner(few(tmp_path / "d"), precision="bf16"), []
    class Bf16OnCpu(MixedPrecision):                                            # fastai's own asks for a GPU
        name = "mixed_precision"
        def before_fit(self):
            self.autocast, self.scales = torch.autocast("cpu", dtype=torch.bfloat16), True
            self.learn.scaler, self.scaler = None, SimpleNamespace(is_enabled=lambda: False, scale=lambda l: l, update=lambda: None)
        def after_step(self): pass
        def before_step(self): pass
        def before_backward(self): pass
        def after_fit(self): pass
        def after_batch(self): seen.append(torch.is_autocast_enabled("cpu"))
    learn.add_cb(Bf16OnCpu())
    quietly(learn, 1, 1e-3)
    assert seen and not any(seen) and not torch.is_autocast_enabled("cpu")


def test_12_workers_are_refused(tmp_path):
    dls = few(tmp_path / "d")
    with pytest.raises(ValueError, match="num_workers: frames are decoded once"): SegDataLoader(dls.train_ds, num_workers=2)
    with pytest.raises(ValueError, match="frames='decode'"): SegDataLoaders.from_path(tmp_path / "d", num_workers=2)


def test_13_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    from segnb.frames import byte_row
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: free._replace(free=10_000))
    with pytest.raises(OSError, match="are needed, and .* has room for 0 MB.*TMPDIR"): byte_row(20_000)


def test_13_a_folder_in_memory(tmp_path, monkeypatch):
    import segnb.frames as d
    monkeypatch.setattr(d, "_kind_of_disk", lambda p: "tmpfs")
    d.check_room(10_000, tmp_path)                                              # a little is no harm
    monkeypatch.setattr(d.shutil, "disk_usage", lambda p: SimpleNamespace(free=2**60))
    with pytest.raises(OSError, match="is in memory, and has room for"): d.check_room(2**50, tmp_path)


def test_13_the_disk_is_taken_for_real():
    import os
    from segnb.frames import byte_row
    before = {f for f in os.listdir("/proc/self/fd")}
    row = byte_row(50 * 2**20)
    files = [f"/proc/self/fd/{f}" for f in set(os.listdir("/proc/self/fd")) - before]
    taken = [os.stat(f).st_blocks * 512 for f in files if os.path.exists(f)]
    base = row.numpy().base
    while not isinstance(base, np.memmap) and getattr(base, "base", None) is not None: base = base.base
    assert max(taken, default=50 * 2**20) >= 50 * 2**20 and len(row) == 50 * 2**20


@pytest.mark.parametrize("way", ["to_parallel", "parallel_ctx", "to_distributed", "distrib_ctx"])
def test_14_several_processes_are_refused(tmp_path, way):
    pytest.importorskip("accelerate")
    import fastai.distributed                                                   # noqa: F401  it adds these methods to Learner
    with pytest.raises(NotImplementedError, match="take over the batch norm"): getattr(small_learner(few(tmp_path / "d")), way)()


def test_14_networks_for_several_devices_are_refused(tmp_path):
    dls = few(tmp_path / "d")
    with pytest.raises(NotImplementedError, match="take over the batch norm"): SegLearner(dls, nn.DataParallel(UNet(3, 2, width=4, depth=2, pad=True)))
    learn = small_learner(dls)
    learn.model = nn.SyncBatchNorm.convert_sync_batchnorm(learn.model)
    with pytest.raises(NotImplementedError, match="SyncBatchNorm"): quietly(learn, 1, 1e-3)


def test_15_random_states_of_many_gpus_keep_their_order(monkeypatch):
    import segnb.checkpoint as c
    got, states = [], [torch.tensor([k], dtype=torch.uint8) for k in range(12)]
    monkeypatch.setattr(c, "set_random_state", lambda s: got.append(s[3]))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 12)
    tensors = {"rng.torch": torch.get_rng_state(), "rng.numpy": torch.zeros(624), **{f"rng.cuda.{k}": s for k, s in enumerate(states)}}
    c._set_rng(SimpleNamespace(dls=SimpleNamespace(loaders=[])), tensors, dict(python=[3, [0], None], numpy=[0, 0, 0.], loaders=[]))
    assert [int(s) for s in got[0]] == list(range(12))


def test_15_calibration_asks_no_doubles_of_the_device():
    from segnb.calibrate import Reliability

    class NoDoubles(torch.Tensor):
        "A tensor of a device without float64, until it is on the CPU"
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func is torch.Tensor.double: raise TypeError("this device has no float64")
            out = super().__torch_function__(func, types, args, kwargs or {})
            return out.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else out
    p = torch.rand(1, 3, 4, 4).softmax(1)
    assert Reliability("abc").add(p.as_subclass(NoDoubles), torch.zeros(1, 4, 4, dtype=torch.long)).count.sum() == 16


def test_15_a_journal_without_symbolic_links(tmp_path, monkeypatch):
    import os
    import pathlib
    from segnb.sweep import open_sweep, read_sweep
    def no(*args, **kwargs): raise OSError(1, "Operation not permitted")
    monkeypatch.setattr(os, "symlink", no); monkeypatch.setattr(pathlib.Path, "symlink_to", no)
    spec = read_sweep(dict(method="grid", parameters=dict(data={"value": "streets"}, lr={"values": [.1, .2]})))
    assert open_sweep(spec, tmp_path / "s.journal").user_attrs["sweep"]["method"] == "grid"


def test_16_a_tracker_that_sends_nothing_says_nothing_of_uploads(small_set, tmp_path):
    import os
    import subprocess
    import sys
    code = f"""if 1:
        from segnb.all import *
        learn = SegLearner(SegDataLoaders.from_path({str(small_set)!r}, crop=(32, 32), bs=4), UNet(3, 11, width=4, depth=2, pad=True))
        learn.track('silent', repo={str(tmp_path)!r}, images=0)
        with learn.no_bar(): learn.fit_one_cycle(1, 1e-3)
        print('runs:', len(runs('silent')))"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, env={**os.environ, "TRACKIO_DIR": str(tmp_path)})
    assert "runs: 1" in run.stdout, run.stderr
    assert "pload" not in run.stdout + run.stderr


def test_17_errors_are_red_and_nothing_else_is():
    red_jacket = np.zeros((4, 4, 3), np.uint8); red_jacket[..., 0] = 200
    truth, pred = np.zeros((4, 4), int), np.zeros((4, 4), int)
    pred[0] = 1
    out = error_image(red_jacket, truth, pred).astype(int)
    assert (out[1:].max(-1) == out[1:].min(-1)).all() and (out[0, :, 0] - out[0, :, 1] > 100).all()


# Found by reading the code once more

def colours_16(path, high=4095):
    "Two 16-bit colour images with values up to `high`, as TIFF and as PNG"
    import cv2, tifffile
    a = np.random.default_rng(0).integers(0, high + 1, (32, 32, 3)).astype(np.uint16)
    a[0, 0] = high
    path.mkdir()
    tifffile.imwrite(path / "0.tiff", a, photometric="rgb")
    cv2.imwrite(str(path / "0.png"), a)
    return a


def test_colours_of_16_bits(tmp_path):
    "Pillow reads their upper 8 bits only"
    a, masks = colours_16(tmp_path / "d"), tmp_path / "0.png"
    Image.fromarray(halves(0, 1)).save(masks)
    for name in ("0.tiff", "0.png"):
        make = lambda **kw: SegDataset([tmp_path / "d" / name], [masks], ["a", "b"], **kw)
        with pytest.warns(UserWarning, match="save them as TIFF, and pass channels=3"): Frames(make())
        with pytest.raises(ValueError, match="range= can do nothing"): make(range=(0, 4095))[0]
        report = check_data(SegDataset([tmp_path / "d" / name], [masks], ["a", "b"]))
        assert "the highest value is 4095" in kinds(report)["few of 16 bits"].detail
    with pytest.raises(ValueError, match="0.png.*save it as TIFF"): make(channels=3, range=(0, 4095))[0]
    x, _ = SegDataset([tmp_path / "d/0.tiff"], [masks], ["a", "b"], channels=3, range=(0, 4095))[0]
    assert np.allclose(np.asarray(x), a.transpose(2, 0, 1) / 4095, atol=1e-3)


def test_full_range_colours_of_16_bits_still_read_as_8(tmp_path):
    a = colours_16(tmp_path / "d", 65535)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = SegDataset([tmp_path / "d/0.tiff"], None, ["a", "b"]).image(0)
    assert np.abs(np.asarray(x).astype(int) - a // 256).max() <= 1


def test_16_bits_in_the_other_byte_order(tmp_path):
    import tifffile
    tifffile.imwrite(tmp_path / "0.tif", np.full((32, 32), 4000, dtype=">u2"), byteorder=">")
    ds = SegDataset([tmp_path / "0.tif"], None, ["a", "b"], range=(0, 4095))
    assert np.asarray(ds.image(0)).max() == 249 and ds._seen.top == 4000


def test_masks_of_floats(tmp_path):
    codes = Codes(["a", "b"])
    assert codes.encode(np.float32([[0, 1]])).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="m.tif: holds 0.5"): codes.encode(np.float32([[0, .5]]), "m.tif")


def test_void_that_is_not_known():
    assert len(Codes(["a", "b", "c"], void=np.int64(2))) == len(Codes(["a", "b", "c"], void=np.array([2]))) == 2
    with pytest.raises(ValueError, match="void: d is none of the names a, b, c"): Codes(["a", "b", "c"], void="d")
    assert len(Codes(["a", "b", "Void"], void=["void", "VOID", 1])) == 1


def test_arrays_of_other_types(small_model):
    model, im = small_model
    a = np.asarray(im)
    same = model.predict(a)
    for b in (a / 255, (a / 255).astype(np.float32), a.astype(np.uint16) * 257):
        assert (model.predict(b) == same).mean() > .99
    assert (model.predict(a/255*1.1-.05) == model.predict((a/255*1.1-.05).clip(0, 1))).mean() > .99
    for b in (a.astype(np.int64), a.astype(np.float32)):
        with pytest.raises(ValueError, match="give bytes"): model.predict(b)
    model.range = (0, 4095)
    assert (model.predict((a / 255 * 4095).astype(np.uint16)) == same).mean() > .99
    model.range = None


@pytest.fixture(scope="module")
def small_model(small_set):
    files = sorted((small_set / "images").iterdir())
    net = UNet(3, 11, width=8, depth=2, pad=True, norm=True)
    return SegModel(net, Codes([f"c{k}" for k in range(11)]), device="cpu"), Image.open(files[0]).convert("RGB")


def test_regions_of_interest_are_checked(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 3, codes=["a", "b"])
    (p / "roi").mkdir()
    for i in range(3): Image.fromarray(halves(255, 0)).save(p / f"roi/{i}.png")
    patterns = dict(images="images/*.png", masks="masks/{stem}.png", roi="roi/{stem}.png")
    report = check_data(p, **patterns)
    assert kinds(report)["class never trained"].detail == "b" and not report.ok
    Image.fromarray(halves(255, 0, (16, 16))).save(p / "roi/0.png")
    assert "another size" in kinds(check_data(p, **patterns))["unreadable mask"].detail


def test_a_test_loader_reads_as_in_training(tmp_path):
    (tmp_path / "m").mkdir()
    rng, files, masks = np.random.default_rng(0), [], []
    for i in range(4):
        files.append(tmp_path / f"{i}.npy")
        masks.append(tmp_path / f"m/{i}.png")
        np.save(files[-1], rng.integers(0, 256, (40, 80, 4), dtype=np.uint8))
        Image.fromarray(halves(0, 1, (40, 80))).save(masks[-1])
    ds = SegDataset(files, masks, ["a", "b"], channels=[3, 0, 1], size=(32, 48), resize="crop")
    dls = SegDataLoaders.from_dataset(ds, lambda o: ([0, 1], [2, 3]), crop=32, bs=2, device="cpu")
    assert torch.equal(dls.test_dl(files[2:]).one_batch()[0], dls.valid.one_batch()[0])


def test_a_table_of_colours_and_frames_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGNB_HOME", str(tmp_path / "home"))
    p = make_set(tmp_path / "d", [(halves(0, 1), [BLACK, RED])] * 2)
    ds = find_pairs(p, ["a", "b"], colors={BLACK: 0, RED: 1})[0]
    assert Frames(ds, ways="file")[0][1].unique().tolist() == [0, 1]


def test_a_folder_that_is_no_checkpoint_is_left_alone(tmp_path, capsys):
    p = make_set(tmp_path / "cells.training", [halves(0, 1)] * 4, codes=["a", "b"])
    for flag in ("--overwrite", "--resume"):
        assert main(["train", str(p), "--out", str(tmp_path / "cells.safetensors"), flag]) == 2
        assert "holds something else" in capsys.readouterr().err
    assert len(list((p / "images").iterdir())) == 4


def test_patterns_that_are_not_known(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 2, codes=["a", "b"])
    with pytest.raises(ValueError, match=r"only \* and \*\* are known"): find_pairs(p, images="images/?.png", masks="masks/{stem}.png")


# What a newcomer does to it

def test_lists_of_validation_images(tmp_path, capsys):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 4, codes=["a", "b"])
    same = lambda: sorted(find_pairs(p)[1](find_pairs(p)[0].images)[1])
    for text in (b"1.png\n3", b"\xef\xbb\xbf1\r\n3\r\n", "1.png\n3.png".encode("utf-16"), b"images\\1.png\n./images/3.png",
                 f"{p}/images/1.png\n3".encode()):
        (p / "valid.txt").write_bytes(text)
        assert same() == [1, 3], text
    (p / "valid.txt").write_text("x.png\ny.png")                    # none of them: not a random fifth, then
    with pytest.raises(ValueError, match="valid.txt names 2 validation images that are not there"): find_pairs(p)
    assert main(["check", str(p)]) == 1 and "none: " in capsys.readouterr().out
    (p / "valid.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match="valid.txt: no text in UTF-8"): find_pairs(p)
    (p / "valid.txt").unlink()
    assert find_pairs(p, valid=["2.png"])[1](find_pairs(p)[0].images)[1] == [2]


def test_a_mark_at_the_beginning_of_codes(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 2)
    (p / "codes.txt").write_bytes(b"\xef\xbb\xbfVoid\r\nroad\r\n")
    assert find_pairs(p)[0].classes == ["road"]
    for text, why in (("a,1,2,3\nb,4,5,6", "Colours go with"), ("# names\na\nb", "take comments out"), ("\n", "no name in it")):
        (p / "codes.txt").write_text(text)
        with pytest.raises(ValueError, match=why): find_pairs(p)


def test_no_name_matches(tmp_path, capsys):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 2)
    for f in list((p / "masks").iterdir()): f.rename(f.with_name("lab" + f.name))
    assert main(["check", str(p)]) == 1 and "no mask" in capsys.readouterr().out
    for f in list((p / "masks").iterdir()): f.rename(f.with_name(f.name.replace("lab", "").replace(".png", ".jpg.png")))
    for f in list((p / "images").iterdir()): f.rename(f.with_suffix(".jpg"))
    assert len(find_pairs(p)[0]) == 2


def test_networks_that_do_not_fit(small_set):
    with pytest.raises(ValueError, match="5 outputs, and there are 3 classes"): SegModel(UNet(3, 5, pad=True), ["a", "b", "c"])
    with pytest.raises(ValueError, match="1 outputs"): SegModel(UNet(3, 1, pad=True), ["a", "b"])
    dls = SegDataLoaders.from_path(small_set, crop=(32, 32), bs=4, device="cpu")
    with pytest.raises(ValueError, match="5 outputs"): seg_learner(dls, UNet(3, 5, pad=True))
    with pytest.raises(ValueError, match="for 1 channels, and the images have 3"): seg_learner(dls, UNet(1, 11, pad=True))


def test_images_that_are_to_be_turned(tmp_path, small_model):
    exif = Image.Exif()
    exif[274] = 6
    p = make_set(tmp_path / "d", [halves(0, 1)] * 2, codes=["a", "b"])
    for i in range(2): Image.new("RGB", (32, 32)).save(p / f"images/{i}.png", exif=exif)
    with pytest.warns(UserWarning, match="EXIF orientation 6"): Frames(find_pairs(p)[0])
    with pytest.warns(UserWarning, match="0.png: the file says how it is to be turned"): small_model[0].predict(p / "images/0.png")
    Image.new("RGB", (32, 16)).save(p / "images/0.png", exif=exif)
    with pytest.raises(ValueError, match="must have the same size.*EXIF"): find_pairs(p)[0].pair(0)


def test_floats_that_are_no_numbers(tmp_path, small_model):
    import tifffile
    for value, why in ((np.nan, "NaN or infinite"), (-1, "highest value is -1")):
        tifffile.imwrite(tmp_path / "0.tif", np.full((32, 32), value, np.float32))
        with pytest.raises(ValueError, match=why): SegDataset([tmp_path / "0.tif"], None, ["a", "b"]).image(0)
    for r in ((4095, 0), 255, (0, 0)):
        with pytest.raises(ValueError, match="low first"): SegDataset([], None, ["a", "b"], range=r)
    Image.fromarray(np.full((32, 32), 3000, np.uint16)).save(tmp_path / "1.png")
    with pytest.warns(UserWarning, match="nearly black"): small_model[0].predict(tmp_path / "1.png")
    with pytest.raises(ValueError, match="give bytes"): small_model[0].predict(np.linspace(-1, 1, 32 * 32 * 3).reshape(32, 32, 3))


def test_255_that_means_two_things(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1), halves(0, 255)])
    assert "255 means two things" in kinds(check_data(p)) and not check_data(p).ok
    with pytest.warns(UserWarning, match="1.png holds 0 and 255, and others 0 and 1"): find_pairs(p)


def test_codes_and_colours_as_people_write_them(tmp_path):
    with pytest.raises(ValueError, match="as a list"): Codes({"a", "b"})
    with pytest.raises(ValueError, match="as a list"): Codes(3)
    codes = Codes({"road": 1, "bg": 0})
    assert codes.encode(np.uint8([[0, 1]])).tolist() == [[1, 0]] and codes.classes == ["road", "bg"]
    p = make_set(tmp_path / "d", [(halves(0, 1), [BLACK, RED])] * 2)
    for colors in ({"a": BLACK, "b": RED}, {"a": "#000000", "b": "#ff0000"}, [[0, 0, 0], (255, 0, 0)]):
        ds = find_pairs(p, None if isinstance(colors, dict) else ["a", "b"], colors=colors)[0]
        assert ds.classes == ["a", "b"] and ds.mask(0).max() == 1 and check_data(p, ds.codes, colors=colors).ok
    assert find_pairs(p, ["b", "a"], colors={"a": BLACK, "b": RED})[0].mask(0)[0, 0] == 1
    with pytest.raises(ValueError, match="same names"): find_pairs(p, ["x", "a"], colors={"a": BLACK, "b": RED})
    with pytest.raises(ValueError, match="the same colour"): find_pairs(p, ["x", "a"], colors=[BLACK, BLACK])
    with pytest.raises(FileNotFoundError, match="no such file"): find_pairs(p, colors="none.json")


def test_masks_of_other_kinds(tmp_path):
    import tifffile
    from segnb.masks import mask_numbers
    m = halves(0, 1)
    for dtype in (np.float64, np.int64, np.float32):
        tifffile.imwrite(tmp_path / "m.tif", m.astype(dtype))
        assert (Codes(["a", "b"]).encode(mask_numbers(tmp_path / "m.tif")) == m).all()
    np.save(tmp_path / "m.npy", m.astype(bool))
    assert (mask_numbers(tmp_path / "m.npy") == m).all()
    tifffile.imwrite(tmp_path / "m.tif", np.stack([1 - m, m]), photometric="minisblack")
    with pytest.raises(ValueError, match="m.tif: holds 2 pages"): mask_numbers(tmp_path / "m.tif")
    Image.merge("RGBA", [Image.new("L", (32, 32))] * 3 + [Image.fromarray(m * 255)]).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="m.png: one colour everywhere, and the transparency differs"): mask_numbers(tmp_path / "m.png")


def test_a_class_for_borders_is_not_refused(tmp_path):
    m = halves(0, 2)
    m[:, 15] = 1
    report = check_data(make_set(tmp_path / "d", [m] * 3, codes=["bg", "border", "cell"]))
    assert report.ok and "a number along boundaries" in kinds(report)


def test_predictions_are_not_predicted(tmp_path, small_model):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2): Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
        out = tmp_path / name / dict(a="predictions", b="")[name]
        for _ in range(2): assert len(small_model[0].predict_folder(tmp_path / name, out, overwrite=True)[0]) == 2


def test_equal_names_in_several_folders(tmp_path, small_model):
    "Their results go into folders of the same names; nothing is replaced, and nothing predicted is predicted again"
    x, model = tmp_path / "x", small_model[0]
    for street in ("a", "b"):
        (x / "deep" / street).mkdir(parents=True)
        for i in range(2): Image.new("RGB", (32, 32), (i, 0, 0)).save(x / "deep" / street / f"{i}.png")
    both = sorted((x / "deep").rglob("*.png"))
    wanted = {f"{street}/{i}_mask.png" for street in "ab" for i in range(2)}
    for src, out, below in ((x, tmp_path / "out", "deep"), (x, x, "deep"), (x / "deep", x / "deep", ""), (both, tmp_path / "list", "")):
        for overlays in (True, False):
            done, failed = model.predict_folder(src, out, overlays, overwrite=True)
            assert {p.relative_to(out / below).as_posix() for p in done} == wanted and not failed
    assert len(list(x.rglob("*_mask.png"))) == 4
    with pytest.raises(ValueError, match="asked for several times"): model.predict_folder([both[0]] * 2, tmp_path / "o")


def test_images_that_are_links(tmp_path, small_model):
    for d in ("store", "photos/a", "photos/b"): (tmp_path / d).mkdir(parents=True)
    for i in range(2): Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / f"store/{i}.png")
    for d in "ab":
        for i in range(2): (tmp_path / f"photos/{d}/{i}.png").symlink_to(tmp_path / f"store/{i}.png")
    done, failed = small_model[0].predict_folder(tmp_path / "photos", tmp_path / "out")
    assert {p.relative_to(tmp_path / "out").as_posix() for p in done} == {f"{d}/{i}_mask.png" for d in "ab" for i in range(2)}


def test_patterns_as_people_write_them(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 3, codes=["a", "b"])
    for images in ("./images/*.png", "images//*.png", p / "images" / "*.png"):
        assert len(find_pairs(p, images=images, masks="masks/{stem}.png")[0]) == 3
    with pytest.raises(FileNotFoundError, match="give 'images/\\*.png'"): find_pairs(p, images="images", masks="masks")
    with pytest.raises(ValueError, match="is not in"): find_pairs(p, images="/elsewhere/*.png", masks="masks/{stem}.png")
    for f in list((p / "masks").iterdir()): f.rename(p / "images" / f"{f.stem}_mask.png")
    (p / "images/._0.png").write_bytes(b"of a Mac")
    assert len(find_pairs(p, images="images/*.png", masks="images/{stem}_mask.png")[0]) == 3


def test_tables_with_gaps(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 3)
    df = pd.DataFrame(dict(image=[f"images/{i}.png" for i in range(3)], mask=[f"masks/{i}.png" for i in range(3)], v=["train", "train", "valid"]))
    make = lambda df, **kw: SegDataLoaders.from_df(df, p, codes=["a", "b"], crop=32, bs=1, device="cpu", **kw)
    with pytest.raises(ValueError, match=r"df\['v'\] == 'valid'"): make(df, valid_col="v")
    with pytest.raises(TypeError, match="a function of the images"): make(df, split="valid.txt")
    df.loc[1, "mask"] = np.nan
    with pytest.raises(ValueError, match="column 'mask' is empty in row 1"): make(df)


def test_a_side_that_has_no_counterpart(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)] * 2, codes=["a", "b"])
    for d, sides in dict(images=("train", "val"), masks=("train", "validate")).items():
        for s, i in zip(sides, range(2)):
            (p / d / s).mkdir()
            (p / d / f"{i}.png").rename(p / d / s / f"{i}.png")
    with pytest.raises(ValueError, match="images/val: there is no folder for this side"): find_pairs(p)


def test_one_mask_for_several_images(tmp_path):
    p = make_set(tmp_path / "d", [halves(0, 1)], codes=["a", "b"])
    for d in "xy":
        (p / "images" / d).mkdir()
        shutil.copy(p / "images/0.png", p / "images" / d / "0.png")
    assert "one mask for several images" in kinds(check_data(p))


def test_numbers_of_codes_in_tables(tmp_path):
    p = make_set(tmp_path / "d", [halves(3, 7)] * 3)
    files = sorted((p / "images").iterdir())
    dls = SegDataLoaders.from_label_func(p, files, lambda f: p / "masks" / f.name, ["a", "b"], values=[3, 7], crop=32, bs=1, device="cpu",
                                         split=lambda f: ([0, 1], [2]))
    assert dls.train_ds[0][1].unique().tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match="not there"): next(iter(SegModel(UNet(3, 2, pad=True), ["a", "b"]).predict_files(tmp_path / "none")))


def test_colours_with_names_and_numbers(tmp_path):
    p = make_set(tmp_path / "d", [(halves(0, 1), [BLACK, RED])] * 2)
    colors = dict(bg=BLACK, road=RED)
    for codes, more in (({"road": 1, "bg": 0}, {}), (["road", "bg"], dict(values=[1, 0])), (Codes(["bg", "road"], values=[0, 255]), {})):
        ds = find_pairs(p, codes, colors=colors, **more)[0]
        assert ds.classes[ds.mask(0)[0, 0]] == "bg" and ds.classes[ds.mask(0)[0, -1]] == "road" and check_data(p, codes, colors, **more).ok


def test_smaller_versions_in_a_tiff_are_no_pages(tmp_path):
    import tifffile
    from segnb.masks import mask_numbers
    with tifffile.TiffWriter(tmp_path / "m.tif") as f:
        f.write(halves(0, 1))
        f.write(halves(0, 1)[::2, ::2], subfiletype=1)
    assert mask_numbers(tmp_path / "m.tif").shape == (32, 32)
    (tmp_path / "n.tif").write_bytes(b"")
    for name in ("n.tif", "n.npy"):
        (tmp_path / name).write_bytes(b"no file")
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a mask"): mask_numbers(tmp_path / name)


def test_what_is_no_fault(tmp_path):
    import tifffile
    tifffile.imwrite(tmp_path / "0.tif", np.zeros((32, 32), np.float32))           # an empty tile
    assert np.asarray(SegDataset([tmp_path / "0.tif"], None, ["a", "b"]).image(0)).max() == 0
    p = make_set(tmp_path / "d", [halves(0, 1), halves(0, 255), halves(0, 2)])
    assert check_data(p, ["bg", "a", "b"], void=[255]).ok
    np.save(p / "masks/0.npy", halves(0, 1))
    (p / "masks/0.png").unlink()
    assert check_data(p, ["bg", "a", "b"], void=[255]).ok and find_pairs(p, ["bg", "a", "b"])[0].mask(0).max() == 1
    (p / "masks/1.jpg.png").write_bytes((p / "masks/2.png").read_bytes())          # an exact name counts first
    assert find_pairs(p, ["bg", "a", "b"])[0].masks[1].name == "1.png"
