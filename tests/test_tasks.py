"""Finder, one cycle, monitor, tracker and checkpoints on fastai's learners for labels, points, texts and language."""
import os
import sys
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import fastai.text.all as ft
import fastai.vision.all as fv
from fastai.callback.core import Callback

from segnb.all import ConfusionMatrix, Monitor, fit_one_cycle, lr_find, plot_losses, plot_sched, track
from segnb.core import group_names
from segnb.samples import aimed_streets, reviews, tile_labels, tiles
from segnb.threshold import PRCurves

KINDS = ["labels", "points", "text", "language", "mask"]


def quiet(learn, f):
    with learn.no_bar(), learn.no_logging(): return f()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Small sets of each kind"
    root = tmp_path_factory.mktemp("made")
    return dict(tiles=tiles(root / "tiles", n=40, size=32), aimed=aimed_streets(root / "aimed", n=30, size=(32, 48)),
                reviews=reviews(root / "reviews", n=60))


def small_body(): return fv.nn.Sequential(fv.ConvLayer(3, 8, stride=2), fv.ConvLayer(8, 8, stride=2))


def vision(block, source, n_out, **kwargs):
    dls = block.dataloaders(source, bs=8, num_workers=0, device="cpu")
    model = fv.nn.Sequential(small_body(), fv.create_head(8, n_out, lin_ftrs=[16]))
    return fv.Learner(dls, model, splitter=lambda m: [fv.params(m[0][0]), fv.params(m[0][1]), fv.params(m[1])], **kwargs)


def labels(data):
    p = data["tiles"]
    block = fv.DataBlock(blocks=(fv.ImageBlock, fv.MultiCategoryBlock(vocab=tile_labels)), get_x=fv.ColReader("image_name", pref=p / "train/", suff=".jpg"),
                         get_y=fv.ColReader("tags", label_delim=" "), splitter=fv.RandomSplitter(seed=1), batch_tfms=fv.aug_transforms(flip_vert=True, max_warp=0))
    metrics = [partial(fv.accuracy_multi, thresh=.3), fv.FBetaMulti(2, thresh=.2, average="samples")]
    return vision(block, pd.read_csv(p / "labels.csv"), len(tile_labels), metrics=metrics)


def points(data):
    p = data["aimed"]
    block = fv.DataBlock(blocks=(fv.ImageBlock, fv.PointBlock), get_x=fv.ColReader("name", pref=p / "images/"), get_y=lambda r: [[r.x, r.y]],
                         splitter=fv.ColSplitter("is_valid"), batch_tfms=fv.aug_transforms())
    return vision(block, pd.read_csv(p / "points.csv"), 2, loss_func=fv.MSELossFlat(), metrics=fv.mae)


def mask(data):
    "Masks with fastai's own block and a network without skip connections"
    p = data["tiles"]
    block = fv.DataBlock(blocks=(fv.ImageBlock, fv.MaskBlock(["dark", "light"])), get_items=fv.get_image_files, splitter=fv.RandomSplitter(seed=1),
                         get_y=lambda f: (np.array(fv.PILImage.create(f).convert("L")) > 128).astype(np.uint8))
    dls = block.dataloaders(p / "train", bs=8, num_workers=0, device="cpu")
    return fv.Learner(dls, fv.nn.Sequential(fv.ConvLayer(3, 8), fv.nn.Conv2d(8, 2, 1)), loss_func=fv.CrossEntropyLossFlat(axis=1), metrics=fv.foreground_acc)


SIZE = dict(emb_sz=8, n_hid=12, n_layers=2)


def texts(data, is_lm):
    df = pd.read_csv(data["reviews"] / "texts.csv").assign(text=lambda d: d.text.str.split())
    blocks = [ft.TextBlock(ft.noop, is_lm=is_lm, seq_len=12, min_freq=1)] + [ft.CategoryBlock] * (not is_lm)
    block = ft.DataBlock(blocks=blocks, get_x=ft.ColReader("text"), get_y=None if is_lm else ft.ColReader("label"), splitter=ft.ColSplitter("is_valid"))
    return block.dataloaders(df, bs=8, num_workers=0, device="cpu", seq_len=12)


def text(data):
    config = {**ft.awd_lstm_clas_config, **SIZE}
    return ft.text_classifier_learner(texts(data, False), ft.AWD_LSTM, config=config, pretrained=False, metrics=ft.accuracy, seq_len=12)


def language(data):
    config = {**ft.awd_lstm_lm_config, **SIZE}
    return ft.language_model_learner(texts(data, True), ft.AWD_LSTM, config=config, pretrained=False, metrics=ft.accuracy)


def make(kind, data):
    fv.set_seed(1)
    learn = globals()[kind](data)
    learn.dls.train.rng.seed(1)
    return learn


def weights(learn): return {k: v.detach().clone() for k, v in learn.model.state_dict().items()}


def same(a, b): return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kind", KINDS)
def test_finder_leaves_everything_as_it_was(kind, data):
    "A training run after a range test is bit for bit the one without it"
    def trained(find):
        learn = make(kind, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if find:
                before = weights(learn)
                curve = quiet(learn, lambda: lr_find(learn, num_it=12, start_lr=1e-4))
                assert len(curve.lrs) >= 2 and curve.lr > 0 and same(before, weights(learn))
            quiet(learn, lambda: fit_one_cycle(learn, 2, 1e-2))
        return learn
    a, b = trained(False), trained(True)
    assert a.recorder.losses == b.recorder.losses and same(weights(a), weights(b))


@pytest.mark.parametrize("kind", KINDS)
def test_one_cycle_and_plots(kind, data):
    learn = make(kind, data)
    quiet(learn, lambda: fit_one_cycle(learn, 2, slice(1e-3, 1e-2)))
    assert len(plot_losses(learn).axes[0].lines) == 2
    n = len(learn.opt.hypers)
    lines = plot_sched(learn).axes[0].lines
    assert len(lines) == n and all("coder" not in line.get_label() for line in lines)    # nobody has a decoder here


def test_names_of_groups(small_set):
    from segnb.all import SegDataLoaders, seg_learner
    learn = seg_learner(SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cpu"))
    learn.create_opt()
    assert group_names(learn) == ["encoder", "decoder", "head"]


@pytest.mark.parametrize("kind", KINDS)
def test_monitor(kind, data, capsys):
    learn, monitor = make(kind, data), Monitor(show=False)
    quiet(learn, lambda: learn.fit(2, 1e-3, cbs=monitor))
    assert len(monitor.history.valid) == 2 and capsys.readouterr().out.count("valid loss") == 2
    assert set(monitor.history.scores) == set(learn.recorder.metric_names[3:-1])


@pytest.mark.parametrize("kind", KINDS)
def test_tracker(kind, data, monkeypatch):
    calls = []

    class Recorder:
        def __getattr__(self, name): return lambda *a, **k: calls.append((name, a, k)) or self

    monkeypatch.setitem(sys.modules, "recording_tracker", Recorder())
    learn = make(kind, data)
    track(learn, "tasks", tracker="recording_tracker", repo=os.devnull, every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)                         # a part that cannot be kept is a warning
        warnings.filterwarnings("ignore", message=".*(epochs of|weight_norm|RNN|lr_scheduler)")
        quiet(learn, lambda: fit_one_cycle(learn, 1, 1e-2))
    config = next(k["config"] for n, _, k in calls if n == "init")
    assert len(config["classes"]) < 500
    if kind in ("labels", "text", "mask"): assert config["classes"] == ", ".join(dict(labels=tile_labels, text=["negative", "positive"], mask=["dark", "light"])[kind])
    assert any("layers" in a[0] for n, a, _ in calls if n == "log" and a)
    points = [a[0] for n, a, _ in calls if n == "log" and a and "batch loss" in a[0]]
    assert points and not any("coder" in k for k in points[0])


class Die(Exception): pass


class Kill(Callback):
    order = 200
    def before_epoch(self):
        if self.epoch == 2: raise Die("killed")


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints(kind, data, tmp_path):
    "A killed run, gone on with in a new learner, ends as the one that was not interrupted"
    def fit(folder, **kwargs):
        learn = make(kind, data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quiet(learn, lambda: fit_one_cycle(learn, 3, 1e-2, resume=tmp_path / folder, **kwargs))
        return learn
    whole = fit("whole")
    with pytest.raises(Die): fit("part", cbs=Kill())
    again = fit("part")
    assert [float(o) for o in whole.recorder.losses] == [float(o) for o in again.recorder.losses]
    assert same(weights(whole), weights(again))


def test_a_tile_is_a_mask_of_one_pixel(data):
    learn = make("labels", data)
    with learn.no_bar(): p, y = learn.get_preds()
    curves = PRCurves(tile_labels)
    curves.add(p[:, :, None, None], y.bool()[:, :, None, None], torch.ones(len(y), 1, 1, dtype=torch.bool))
    assert list(curves.table().index) == tile_labels and len(curves.best) == len(tile_labels)


def test_confusions_of_texts(data):
    learn = make("text", data)
    with learn.no_bar(): p, y = learn.get_preds()
    cm = ConfusionMatrix(classes=learn.dls.vocab[1]).add(p.argmax(1)[None], y[None])
    assert int(cm.matrix.sum()) == len(y) and cm.pixel_acc == pytest.approx(float((p.argmax(1) == y).float().mean()))
