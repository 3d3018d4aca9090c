"""The store of feedback, and a model that is improved with it: several processes, bad input, versions."""
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from conftest import segnb
from segnb.feedback import Feedback


def corrected(store, folder, n=None, change=lambda m: m, version=1):
    "Put the pairs of a street set into a store as corrections"
    from segnb.dataset import find_pairs
    ds, _ = find_pairs(folder)
    for i in range(n or len(ds)):
        im, mask = ds.pair(i)
        k = store.add(Image.fromarray(im), np.zeros_like(mask), "abc", version)
        store.judge(k, "corrected", change(mask))
    return ds


@pytest.fixture(scope="module")
def fog_set(tmp_path_factory):
    from segnb.streets import streets
    return streets(tmp_path_factory.mktemp("fog") / "fog", n_clips=16, n_frames=1, size=(96, 128), n_valid=0, seed=11, weather="fog")


@pytest.fixture
def work(tmp_path, model_file, small_set):
    "A model in a folder of its own, with its training data in the header"
    from segnb.model_file import load_model
    m = load_model(model_file)
    m.info = dict(data=str(small_set), lr=3e-3)
    m.save(tmp_path / "m.safetensors")
    return tmp_path


WRITER = """
import sys, numpy as np
from PIL import Image
from segnb.feedback import Feedback
def write(path, who):
    with Feedback(path) as s:
        for k in range(20):
            i = s.add(Image.new('RGB', (8, 8), (k, 0, who)), np.full((8, 8), k, np.uint8), 'm', 1, owner=str(who))
            s.judge(i, 'right')
"""


def test_two_processes_write_one_store(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", WRITER + "write(sys.argv[1], 1)", tmp_path / "s"])
    here = {}
    exec(WRITER, here)
    deadline = time.time() + 120
    while time.time() < deadline:                               # until the other one is under way
        with Feedback(tmp_path / "s") as s:
            if len(s.rows()): break
        time.sleep(.05)
    here["write"](tmp_path / "s", 2)
    assert other.wait(120) == 0
    with Feedback(tmp_path / "s", create=False) as s:
        rows = s.rows()
        assert len(rows) == 40 and (rows.verdict == "right").all() and rows.id.is_unique
        assert {s.image(i).getpixel((0, 0)) for i in rows.id} == {(k, 0, o) for k in range(20) for o in (1, 2)}
        assert s.delete("1") == 20 and len(s.rows()) == 20


def test_a_later_correction_replaces_the_earlier_one_and_its_mask(tmp_path):
    with Feedback(tmp_path / "s") as s:
        i = s.add(Image.new("RGB", (4, 3)), np.zeros((3, 4), np.uint8), "m", 1)
        for k in (1, 2): s.judge(i, "corrected", np.full((3, 4), k, np.uint8), comment=f"{k}")
        assert (s.mask(i) == 2).all() and s.rows().comment[0] == "2"
        assert s._ask("SELECT count(*) FROM files") == [(3,)]
        s.judge(i, "right")
        assert (s.mask(i) == 0).all() and s._ask("SELECT count(*) FROM files") == [(2,)]


def test_corrections_become_a_folder_that_check_passes(tmp_path, fog_set):
    from segnb.improve import corrections, from_feedback
    with Feedback(tmp_path / "s") as s:
        ds = corrected(s, fog_set)
        first = corrections(s).set_index("image").judge
        folder = from_feedback(s, tmp_path / "folder", ds.classes)
        held = (folder / "valid.txt").read_text().split()
        assert sorted(held) == sorted(f"{h}.png" for h in first.index[first]) and 0 < len(held) < 16
        for r in corrections(s).itertuples():
            assert (np.array(Image.open(folder / "images" / f"{r.image}.png")) == np.array(s.image(r.id))).all()
            assert (np.array(Image.open(folder / "labels" / f"{r.image}.png")) == s.mask(r.id)).all()
        # the same image again, with another mask: it stays on its side, and the last mask counts
        corrected(s, fog_set, change=lambda m: np.where(m == 3, np.uint8(255), m), version=2)
        again = corrections(s).set_index("image").judge
        assert again.sort_index().equals(first.sort_index())
        assert (s.mask(corrections(s).id.iloc[0]) != 3).all()
        with pytest.raises(FileExistsError): from_feedback(s, folder, ds.classes)
        with pytest.raises(ValueError, match="has class .* and the model has 3 classes"): from_feedback(s, tmp_path / "few", ds.classes[:3])
        assert not (tmp_path / "few").exists()
    got = segnb("check", folder)
    assert got.returncode == 0, got.stdout + got.stderr


def test_improve_replaces_a_model_that_got_better_and_goes_back(work, fog_set):
    from segnb.model_file import load_model, read_header
    model, before = work / "m.safetensors", (work / "m.safetensors").read_bytes()
    with Feedback(work / "s") as s: corrected(s, fog_set)
    got = segnb("improve", model, work / "s", "--epochs", "4", "--tolerance", "1")
    assert got.returncode == 0, got.stdout + got.stderr
    assert "version 2" in got.stdout and "corrected" in got.stdout
    info = read_header(model)["info"]
    assert info["version"] == 2 and info["parent"] == 1 and info["improved"]["judged"]["corrected"]["low"] > 0
    assert (work / "m.v1.safetensors").read_bytes() == before
    assert (work / "m.v2.safetensors").read_bytes() == model.read_bytes()
    assert load_model(model).predict(Image.new("RGB", (128, 96))).shape == (96, 128)
    got = segnb("improve", model, "--rollback")
    assert got.returncode == 0 and "version 1" in got.stdout, got.stderr
    assert model.read_bytes() == before
    got = segnb("improve", model, "--rollback")
    assert got.returncode == 2 and "no earlier one" in got.stderr


def test_improve_leaves_the_model_where_more_is_asked_than_the_new_one_gives(work, fog_set):
    model = work / "m.safetensors"
    before = model.read_bytes()
    with Feedback(work / "s") as s: corrected(s, fog_set)
    got = segnb("improve", model, work / "s", "--epochs", "1", "--tolerance", "-1")      # a whole point of mean IoU better, everywhere
    assert got.returncode == 1 and "stays" in got.stdout and "perhaps worse" in got.stdout, got.stdout + got.stderr
    assert model.read_bytes() == before and len(list(work.glob("m*.safetensors"))) == 1


def test_messages(work, fog_set, tmp_path):
    from segnb.model_file import load_model
    model = work / "m.safetensors"
    for args, words in (((model, work / "none"), "no store of feedback"), ((model,), "give a store"),
                        ((model, work / "s"), "too few corrections: 0 to train on")):
        if args[-1] == work / "s": Feedback(work / "s").close()
        got = segnb("improve", *args)
        assert got.returncode == 2 and words in got.stderr, got.stderr
    with Feedback(work / "s") as s: corrected(s, fog_set)
    m = load_model(model)
    m.info = {}
    m.save(model)
    got = segnb("improve", model, work / "s")
    assert got.returncode == 2 and "give --data" in got.stderr
    got = segnb("improve", model, work / "s", "--data", work / "nowhere")
    assert got.returncode == 2 and "no such folder" in got.stderr


def test_the_judge():
    from segnb.improve import bootstrap, is_better, mean_ious
    rng = np.random.default_rng(1)
    def matrices(p, n=40):
        "Images of 1000 pixels and three classes, a share `p` of each right"
        y = rng.integers(0, 3, (n, 1000))
        pred = np.where(rng.random(y.shape) < p, y, (y + 1) % 3)
        return np.stack([np.bincount(a * 3 + b, minlength=9).reshape(3, 3) for a, b in zip(y, pred)])
    old, same, good = matrices(.7), matrices(.7), matrices(.8)
    t = pd.DataFrame(dict(corrected=bootstrap(old, good), validation=bootstrap(old, same))).T
    assert t.low["corrected"] > 0 and is_better(t, .05) and not is_better(t, 0)
    assert t.low["validation"] < 0 < t.high["validation"]
    assert not is_better(pd.DataFrame(dict(corrected=bootstrap(old, same), validation=bootstrap(old, good))).T)
    assert abs(t.difference["corrected"] - (mean_ious(good.sum(0)) - mean_ious(old.sum(0)))) < 1e-12
    # the interval is as wide as the differences of other samples scatter
    diffs = [mean_ious(matrices(.8).sum(0)) - mean_ious(matrices(.7).sum(0)) for _ in range(200)]
    assert .6 < (t.high - t.low)["corrected"] / (4 * np.std(diffs)) < 1.6


def test_a_mixture_has_every_correction_once_an_epoch(small_set, fog_set):
    from segnb.dataset import find_pairs
    from segnb.frames import Frames
    from segnb.improve import Mixture
    new, old = Frames(find_pairs(fog_set)[0].subset(range(6))), Frames(find_pairs(small_set)[0])
    for share, n in ((.5, 12), (.25, 24), (1, 6)):
        mix = Mixture(new, old, share)
        assert len(mix) == n
        x, y = mix.batch(range(n))
        assert (x[:6] == new.batch(range(6))[0]).all() and len(x) == n
    with pytest.raises(ValueError, match="share=0"): Mixture(new, old, 0)


def test_a_file_that_another_run_wrote_is_kept_too(work):
    from segnb.improve import model_version, rollback, save_version, versions
    from segnb.model_file import load_model
    fn, says = work / "m.safetensors", lambda: load_model(work / "m.safetensors").info.get("says")
    def write(what, version=False):
        m = load_model(fn)
        m.info = {**m.info, "says": what} if version else dict(says=what)
        return save_version(m, fn, {}) if version else m.save(fn)
    write("first"), write("improved", True), write("trained again")
    assert model_version(fn) == 1 and write("improved again", True) == 4 and versions(fn) == [1, 2, 3, 4]
    assert rollback(fn) == 3 and says() == "trained again"
    assert write("and again", True) == 5 and versions(fn) == [1, 2, 3, 4, 5] and rollback(fn) == 3 and says() == "trained again"


def test_whole_batches_hold_every_correction(small_set, fog_set):
    from segnb.dataset import find_pairs
    from segnb.frames import Frames
    from segnb.improve import Mixture
    new, old = (Frames(find_pairs(p)[0].subset(range(n))) for p, n in ((fog_set, 4), (small_set, 6)))
    mix = Mixture(new, old, .3, bs=8)
    assert (len(mix), mix.bs) == (14, 7) and len(Mixture(new, old, .3)) == 13
    alone = Mixture(new, old, 1, bs=3)
    assert (len(alone), alone.bs) == (4, 2)
    alone = Mixture(Frames(find_pairs(fog_set)[0].subset(range(5))), old, 1, bs=3)      # filled up with corrections
    assert (len(alone), alone.bs) == (6, 3) and all(torch.equal(a, b) for a, b in zip(alone[5], alone.new[0]))


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    import sqlite3
    def fails(*args, **kwargs): raise sqlite3.OperationalError("unable to open database file")
    monkeypatch.setattr(sqlite3, "connect", fails)
    with pytest.raises(OSError, match="cannot be opened"): Feedback(tmp_path / "s")
