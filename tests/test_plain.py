"""A plain fastai `Learner` has the finder, the plots, the monitor, the tracker and the checkpoints too."""
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.layers import Flatten
from fastai.learner import Learner
from fastai.callback.core import Callback
from fastai.metrics import accuracy, error_rate
from PIL import Image
from safetensors import safe_open

from segnb.all import Checkpoint, LRCurve, Monitor, Tracker, fit_one_cycle, lr_find, plot_losses, plot_sched, track

FILES = Path(__file__).parent / "files"


@pytest.fixture
def learn(tmp_path):
    "Digits' classifier in miniature: nothing of segnb in it"
    torch.manual_seed(0)
    x = torch.randn(64, 1, 8, 8)
    y = (x.mean((1, 2, 3)) > 0).long()
    ds = torch.utils.data.TensorDataset(x, y)
    dls = DataLoaders(*(DataLoader(ds, bs=8) for _ in range(2)), device="cpu")
    model = torch.nn.Sequential(Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    return Learner(dls, model, loss_func=torch.nn.functional.cross_entropy, metrics=accuracy, path=tmp_path)


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])


def quiet(learn, f):
    with learn.no_bar(), learn.no_logging(): return f()


def test_finder(learn):
    before = weights(learn).clone()
    curve = lr_find(learn, start_lr=1e-4)
    assert isinstance(curve, LRCurve) and len(curve.lrs) > 20 and 1e-4 < curve.lr < 10
    assert torch.equal(weights(learn), before) and curve.plot().axes


def test_one_cycle_is_fastais(learn):
    start = {k: v.clone() for k, v in learn.model.state_dict().items()}
    quiet(learn, lambda: fit_one_cycle(learn, 2, 1e-2))
    ours, lrs = weights(learn).clone(), list(learn.recorder.lrs)
    learn.model.load_state_dict(start)
    learn.opt = None
    quiet(learn, lambda: learn.fit_one_cycle(2, 1e-2))
    assert np.allclose(lrs, learn.recorder.lrs) and torch.allclose(ours, weights(learn), atol=1e-6)


def test_plots(learn):
    with pytest.raises(AttributeError): learn.plot_sched
    quiet(learn, lambda: fit_one_cycle(learn, 3, 1e-2))
    assert len(plot_losses(learn).axes[0].lines) == 2
    assert len(plot_sched(learn).axes) >= 2


def test_monitor(learn, capsys):
    monitor = Monitor(show=False)
    quiet(learn, lambda: learn.fit_one_cycle(2, 1e-2, cbs=monitor))
    assert monitor.history.done == 16 and len(monitor.history.valid) == 2 and "accuracy" in monitor.history.scores
    assert capsys.readouterr().out.count("accuracy") == 2


def test_monitor_draws(learn):
    monitor = Monitor(show=True)
    quiet(learn, lambda: learn.fit(1, 1e-2, cbs=monitor))
    assert "done: 1 epochs" in monitor.says and "data:image" in monitor.image.value


def test_tracker(learn, tmp_path, monkeypatch):
    calls = []

    class Recorder:
        def __getattr__(self, name): return lambda *a, **k: calls.append((name, a, k)) or self

    monkeypatch.setitem(sys.modules, "recording_tracker", Recorder())
    assert track(learn, "plain", tracker="recording_tracker", repo=os.devnull) is learn
    quiet(learn, lambda: learn.fit_one_cycle(2, 1e-2))
    rows = [a[0] for name, a, _ in calls if name == "log" and a and "epoch" in a[0]]
    assert [r["epoch"] for r in rows] == [1, 2] and all("accuracy" in r and "valid_loss" in r for r in rows)
    assert [n for n, *_ in calls].count("finish") == 1
    config = next(k["config"] for n, _, k in calls if n == "init")
    assert config["batch_size"] == 8 and config["precision"] == "fp32" and config["peak_lr"] == 1e-2
    assert not learn.cbs.filter(lambda cb: isinstance(cb, Tracker))[0].opened


class Die(Exception): pass


def test_checkpoints(learn, tmp_path):
    from fastai.callback.core import Callback

    class Kill(Callback):
        order = 200
        def before_epoch(self):
            if self.epoch == 2: raise Die("killed")

    start = {k: v.clone() for k, v in learn.model.state_dict().items()}
    quiet(learn, lambda: fit_one_cycle(learn, 4, 1e-2, resume=tmp_path / "whole"))
    whole = weights(learn).clone()
    learn.model.load_state_dict(start)
    learn.opt = None
    with pytest.raises(Die): quiet(learn, lambda: fit_one_cycle(learn, 4, 1e-2, resume=tmp_path / "part", cbs=Kill()))
    learn.model.load_state_dict({k: torch.zeros_like(v) for k, v in start.items()})
    learn.opt = None
    quiet(learn, lambda: fit_one_cycle(learn, 4, 1e-2, resume=tmp_path / "part"))
    assert torch.equal(weights(learn), whole)
    assert len(learn.recorder.losses) == 32 and len(learn.recorder.values) == 4


def test_checkpoint_as_a_callback_keeps_the_best(learn, tmp_path):
    quiet(learn, lambda: learn.fit(2, 1e-2, cbs=Checkpoint(tmp_path / "c", best="accuracy")))
    from safetensors.torch import load_file
    best, scores = load_file(tmp_path / "c" / "best.safetensors"), [v[2] for v in learn.recorder.values]
    assert set(best) == set(learn.model.state_dict())
    if scores[1] > scores[0]: assert torch.equal(best["1.weight"], learn.model[1].weight)
    cb = learn.cbs.filter(lambda cb: isinstance(cb, Checkpoint))
    assert not cb                                                     # it was given to `fit` only
    again = Checkpoint(tmp_path / "c", best="accuracy")
    again.learn = learn
    assert again._best_kept() == pytest.approx(max(scores))


def patches(path):
    "The data set that `files/training` was trained on: 12 images of 32x48, three classes"
    rng = np.random.default_rng(0)
    for d in ("images", "masks"): (path / d).mkdir(parents=True, exist_ok=True)
    for i in range(12):
        mask = np.kron(rng.integers(0, 3, (4, 6)), np.ones((8, 8))).astype(np.uint8)
        image = (mask[..., None]*60 + rng.integers(0, 60, (32, 48, 3))).astype(np.uint8)
        Image.fromarray(mask).save(path / f"masks/{i:02}.png")
        Image.fromarray(image).save(path / f"images/{i:02}.png")
    (path / "codes.txt").write_text("a\nb\nc")
    return path


def old_learner(path):
    from segnb.all import SegDataLoaders, SegLearner, UNet
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    dls = SegDataLoaders.from_path(path, crop=(16, 32), bs=4, device="cpu")
    return SegLearner(dls, UNet(3, 3, width=4, depth=2, pad=True, norm=True), precision="fp32")


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    "Written by segnb at 27d179f after the first of three epochs; losses.json is of the run that was not interrupted"
    import shutil
    shutil.copytree(FILES / "training", tmp_path / "training")
    learn = old_learner(patches(tmp_path / "data"))
    quiet(learn, lambda: learn.fit_one_cycle(3, 1e-2, resume=tmp_path / "training"))
    assert np.allclose([float(o) for o in learn.recorder.losses], json.loads((FILES / "training" / "losses.json").read_text()), atol=1e-4)


def test_a_checkpoint_of_an_earlier_version_is_compared(tmp_path):
    import shutil
    shutil.copytree(FILES / "training", tmp_path / "training")
    learn = old_learner(patches(tmp_path / "data"))
    with pytest.raises(ValueError, match=r"lr \("): quiet(learn, lambda: learn.fit_one_cycle(3, 2e-2, resume=tmp_path / "training"))


def test_an_interrupted_range_test_does_not_leave_a_checkpoint_off(learn, tmp_path):
    class Interrupt(Callback):
        def after_batch(self):
            if self.learn.train_iter == 5: raise KeyboardInterrupt
    checkpoint = Checkpoint(tmp_path / "c", best="accuracy")
    learn.add_cb(checkpoint)
    learn.add_cb(Interrupt())
    with pytest.raises(KeyboardInterrupt): lr_find(learn)
    learn.remove_cb(Interrupt)
    quiet(learn, lambda: learn.fit(1))
    assert (tmp_path / "c/last.safetensors").exists()


def test_a_watcher_that_is_left_out_stays_out(learn, tmp_path):
    checkpoint = Checkpoint(tmp_path / "c", best="accuracy")
    learn.add_cb(checkpoint)
    checkpoint.run = False
    quiet(learn, lambda: learn.fit(1))
    assert not (tmp_path / "c").exists()


def test_the_table_comes_back_after_an_interrupted_run_with_a_monitor(learn):
    class Interrupt(Callback):
        def after_batch(self): raise KeyboardInterrupt
    logger, monitor = learn.logger, Monitor(show=False)
    learn.add_cb(monitor)
    learn.add_cb(Interrupt())
    with pytest.raises(KeyboardInterrupt): learn.fit(1)
    learn.remove_cb(Interrupt)
    learn.fit(1)
    learn.remove_cb(monitor)
    assert learn.logger is logger


def test_the_best_by_an_error_and_without_a_validation(learn, tmp_path):
    from segnb.recipe import ValidateEvery
    learn.metrics = error_rate
    quiet(learn, lambda: learn.fit(3, 1e-2, cbs=[ValidateEvery(2), Checkpoint(tmp_path / "c", best="error_rate")]))
    errors = [v[2] for v in learn.recorder.values if len(v) > 2]
    with safe_open(tmp_path / "c/best.safetensors", "pt") as f: kept = json.loads(f.metadata()["segnb-best"])["error_rate"]
    assert abs(kept-min(errors)) < 1e-6


def test_a_tracker_draws_nothing_from_the_loader(learn, tmp_path, monkeypatch):
    "The shapes of the layers take a batch, and the random numbers are as they were"
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "t"))
    start = {k: v.clone() for k, v in learn.model.state_dict().items()}
    got = []
    for cbs in ([], [Tracker("p", tracker="fake")]):
        monkeypatch.setitem(sys.modules, "fake", fake_tracker())
        learn.model.load_state_dict(start)
        learn.opt = None
        torch.manual_seed(3)
        learn.dls.train.rng.seed(3)
        quiet(learn, lambda: learn.fit(1, cbs=cbs))
        got.append(weights(learn).clone())
    assert torch.equal(*got)


def fake_tracker():
    from types import SimpleNamespace as NS
    run = NS(log=lambda *a, **k: None, finish=lambda *a, **k: None)
    return NS(init=lambda **k: run, Table=lambda **k: None, Histogram=lambda **k: None, Image=lambda *a, **k: None)


def test_classes_that_are_no_texts():
    from types import SimpleNamespace as NS
    from segnb.track import _classes
    dls = NS(vocab=[False, True], train=NS(after_item=NS()))
    assert _classes(dls) == [False, True]
