"""Tracking beyond what the chapter shows: wandb's own module, interruptions, the view's edges."""
import os
import sys

import pytest

from segnb.all import SegDataLoaders, seg_learner
from segnb.core import is_fitting
from segnb.track import Tracker


def small_learner(small_set):
    return seg_learner(SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cpu"))


def test_wandb_offline_takes_the_same_calls(small_set, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    learn = small_learner(small_set)
    (tmp_path / "kept.txt").write_text("kept")
    learn.track("test", run="one", files=[tmp_path / "kept.txt"], tracker="wandb", mode="offline", dir=str(tmp_path), every=1, hist_every=2, images=1, repo=tmp_path)
    tracker = learn.cbs.filter(lambda cb: isinstance(cb, Tracker))[0]
    failed = []
    safely = tracker.safely
    tracker.safely = lambda f, *a, **k: (safely(f, *a, **k), failed.append(f) if not tracker.on else None)[0]
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    assert not failed
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [f.read_text() for f in tmp_path.glob("wandb/offline-run-*/files/kept.txt")] == ["kept"]


@pytest.mark.parametrize("as_callback", [False, True])
def test_an_interrupted_run_is_closed_and_gives_back_what_is_printed(small_set, monkeypatch, as_callback):
    from fastai.callback.core import Callback

    class Stop(Callback):
        def after_batch(self): raise KeyboardInterrupt

    calls = []

    class Recorder:
        def __getattr__(self, name): return lambda *a, **k: calls.append(name) or self

    monkeypatch.setitem(sys.modules, "recording_tracker", Recorder())
    learn, out = small_learner(small_set), sys.stdout
    tracker = Tracker("test", tracker="recording_tracker", repo=os.devnull)
    cbs = [tracker, Stop()] if as_callback else [Stop()]
    if not as_callback: learn.add_cb(tracker)
    with learn.no_bar(), learn.no_logging(), pytest.raises(KeyboardInterrupt): learn.fit_one_cycle(1, 1e-3, cbs=cbs)
    assert sys.stdout is out
    assert calls[0] == "init" and calls[-1] == "finish" and tracker.opened is None


def test_a_run_is_closed_after_a_tracker_that_failed_in_between(small_set, monkeypatch):
    calls = []

    class Full:
        def __getattr__(self, name): return lambda *a, **k: calls.append(name) or self
        def log(self, *a, **k):
            if len(calls) > 3: raise OSError("no space left on device")
            calls.append("log")
            return self

    monkeypatch.setitem(sys.modules, "full_tracker", Full())
    learn, out = small_learner(small_set), sys.stdout
    learn.track("test", tracker="full_tracker", every=1, repo=os.devnull)
    with learn.no_bar(), learn.no_logging(), pytest.warns(UserWarning, match="no space left"): learn.fit_one_cycle(1, 1e-3)
    assert calls[-1] == "finish" and sys.stdout is out


def test_a_validation_inside_a_training_does_not_end_the_tracking(small_set, monkeypatch):
    from fastai.callback.core import Callback

    class Look(Callback):
        order = 99
        def after_epoch(self):
            if is_fitting(self.learn) and self.epoch == 0 and not looked: looked.append(self.learn.validate())

    calls, looked = [], []

    class Recorder:
        def __getattr__(self, name): return lambda *a, **k: calls.append((name, a)) or self

    monkeypatch.setitem(sys.modules, "recording_tracker", Recorder())
    learn = small_learner(small_set)
    learn.track("test", tracker="recording_tracker", repo=os.devnull)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-3, cbs=Look())
    assert looked and [a[0]["epoch"] for name, a in calls if name == "log" and "epoch" in a[0]] == [1, 2, 3]
    assert [name for name, _ in calls].count("init") == 1 and [name for name, _ in calls].count("finish") == 1


def test_how_a_training_ended_is_its_own_affair(small_set, monkeypatch):
    tables = []

    class Recorder:
        def __getattr__(self, name): return lambda *a, **k: self
        def Table(self, dataframe): tables.append(dataframe); return self

    monkeypatch.setitem(sys.modules, "recording_tracker", Recorder())
    learn = small_learner(small_set)
    learn.track("test", tracker="recording_tracker", repo=os.devnull)
    try: raise FloatingPointError
    except FloatingPointError:
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    assert tables[-1]["how"].tolist() == ["complete"]


def test_a_name_that_is_taken_gets_a_number(monkeypatch):
    import segnb.track as T
    from types import SimpleNamespace as N
    monkeypatch.setattr(T, "_records", lambda project: [N(name="a"), N(name="a 2")])
    assert T._new_name("p", "a") == "a 3" and T._new_name("p", "b") == "b"


def test_the_command_tracks_and_goes_back(small_set, tmp_path):
    import subprocess
    repo = tmp_path / "repo"
    repo.mkdir()
    git = lambda *a: subprocess.run(["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *a], cwd=repo, check=True, capture_output=True)
    git("init", "-q")
    (repo / "recipe.txt").write_text("one\n")
    git("add", "."); git("commit", "-qm", "first")
    (repo / "recipe.txt").write_text("two\n")                             # an edit that is never committed
    env = dict(os.environ, TRACKIO_DIR=str(tmp_path / "trackio"))
    segnb = lambda *a: subprocess.run([sys.executable, "-m", "segnb.cli", *map(str, a)], cwd=repo, env=env, capture_output=True, text=True)
    trained = segnb("train", small_set, "--epochs", 1, "--crop", 64, 64, "--bs", 4, "--out", tmp_path / "m.safetensors", "--track", "proj")
    assert trained.returncode == 0, trained.stderr
    git("checkout", "-q", ".")
    gone = segnb("back", "proj", "m", tmp_path / "back")
    assert gone.returncode == 0, gone.stderr
    assert (tmp_path / "back" / "recipe.txt").read_text() == "two\n" and (repo / "recipe.txt").read_text() == "one\n"
    wrong = segnb("back", "proj", "nosuch", tmp_path / "other")
    assert wrong.returncode == 2 and "there are m" in wrong.stderr
