"""The command; most of it called here, some in processes of its own."""
import os, shutil, signal, subprocess, sys

import numpy as np
import pytest
from PIL import Image

from conftest import segnb, segnb_process


def test_help_answers_without_loading_torch():
    out = segnb(code="import sys; from segnb.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)")
    assert out.stdout.strip().endswith("False") and "predict" in out.stdout


def test_predict_gives_maps_of_the_images_own_size(model_file, small_set, tmp_path):
    src = tmp_path / "in"; src.mkdir()
    rgb = Image.open(next((small_set / "images").glob("*.png")))
    sizes = {"plain": rgb, "odd": rgb.resize((321, 227)), "grey": rgb.convert("L"), "alpha": rgb.convert("RGBA"), "tiny": rgb.resize((9, 7))}
    for name, im in sizes.items(): im.save(src / f"{name}.png")
    (src / "broken.png").write_bytes(b"not an image")
    run = segnb("predict", model_file, src, "--out", tmp_path / "out")
    assert run.returncode == 1 and "broken.png" in run.stderr and "5 class maps" in run.stdout
    for name, im in sizes.items():
        mask = Image.open(tmp_path / "out" / f"{name}_mask.png")
        assert mask.size == im.size and mask.mode == "P" and np.asarray(mask).max() < 11
        assert Image.open(tmp_path / "out" / f"{name}_overlay.jpg").size == im.size
    again = segnb("predict", model_file, src, "--out", tmp_path / "out")
    assert again.returncode == 2 and "already there" in again.stderr


def test_grey_rgba_and_plain_agree(model_file, small_set):
    from segnb.all import load_model
    model, rgb = load_model(model_file, device="cpu"), Image.open(next((small_set / "images").glob("*.png")))
    plain = model.predict(rgb)
    assert (model.predict(rgb.convert("RGBA")) == plain).all() and plain.shape == (96, 128)
    assert (model.predict(np.asarray(rgb)) == plain).all()


def test_predict_takes_a_folder_a_list_and_a_batch(model_file, small_set):
    import torch
    from segnb.all import SegDataLoaders, load_model
    model, files = load_model(model_file, device="cpu"), sorted((small_set / "images").iterdir())
    maps = dict(model.predict_files(small_set / "images"))
    assert list(maps) == files and all(m.shape == (96, 128) for m in maps.values())
    assert (dict(model.predict_files(files[:2]))[files[1]] == maps[files[1]]).all()
    x = torch.stack([torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) / 255 for f in files[:3]])
    assert (model.predict_batch(x)[2].numpy() == maps[files[2]]).mean() > .999      # batched kernels may round differently


def test_train_writes_a_model_that_scores_as_printed(small_set, tmp_path):
    run = segnb("train", small_set, "--out", tmp_path / "m.safetensors", "--epochs", 1, "--crop", 64, 64, "--bs", 4)
    assert run.returncode == 0, run.stderr
    last = run.stdout.strip().splitlines()[-1]
    from segnb.all import ConfusionMatrix, find_pairs, load_model
    model, cm = load_model(tmp_path / "m.safetensors", device="cpu"), ConfusionMatrix(11)
    ds, split = find_pairs(small_set)
    for i in split(ds.images)[1]: cm.add(model.predict(ds.images[i]), ds[i][1])
    assert last.startswith("pixel accuracy 0.") and " seconds " in last
    assert abs(float(last.split()[2]) - cm.pixel_acc) < .002 and abs(float(last.split()[5]) - cm.mean_iou) < .002
    again = segnb("train", small_set, "--out", tmp_path / "m.safetensors")
    assert again.returncode == 2 and "--overwrite" in again.stderr


@pytest.mark.parametrize("args, why", [(("train", "nosuch"), "no such folder"), (("predict", "no.safetensors", "x.png"), "no such model file"),
                                       (("train", "tests"), "found neither"), (("export", "no.safetensors"), "no such model file")])
def test_errors_are_one_line(args, why):
    run = segnb(*args)
    assert run.returncode == 2 and why in run.stderr and "Traceback" not in run.stderr


def test_an_error_is_one_line_in_a_process_too():
    run = segnb_process("train", "nosuch")
    assert run.returncode == 2 and run.stderr.startswith("segnb: nosuch: no such folder") and len(run.stderr.splitlines()) == 1


def test_same_seed_same_weights(small_set, tmp_path, monkeypatch):
    "Also where frames are decoded as they are drawn"
    import torch
    from segnb.all import load_model
    monkeypatch.setenv("SEGNB_HOME", str(tmp_path / "home"))
    for n, more in dict(a=[], b=["--frames", "decode"]).items():
        run = segnb("train", small_set, "--out", tmp_path / f"{n}.safetensors", "--epochs", 1, "--crop", 64, 64, "--bs", 4,
                    "--seed", 5, *more)
        assert run.returncode == 0 and ("frames decoded as they are drawn" in run.stdout) == bool(more), run.stderr
    a, b = (load_model(tmp_path / f"{n}.safetensors", device="cpu").model.state_dict() for n in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_check_says_whether_training_should_start(small_set, tmp_path):
    run = segnb("check", small_set)
    assert run.returncode == 0 and "training may start" in run.stdout
    shutil.copytree(small_set, tmp_path / "set")
    next((tmp_path / "set" / "labels").iterdir()).write_bytes(b"")
    run = segnb("check", tmp_path / "set")
    assert run.returncode == 1 and "unreadable mask" in run.stdout and "training should not start" in run.stdout


def test_training_asks_the_doctor_first(small_set, tmp_path):
    shutil.copytree(small_set, tmp_path / "set")
    listed = (tmp_path / "set" / "valid.txt").read_text()
    (tmp_path / "set" / "valid.txt").write_text(listed + "ghost.png\n")
    run = segnb("train", tmp_path / "set", "--out", tmp_path / "m.safetensors")
    assert run.returncode == 2 and "listed, not there" in run.stderr and "ghost.png" in run.stderr
    assert not (tmp_path / "m.safetensors").exists()


def test_a_model_file_may_be_read_like_any_other(model_file, tmp_path):
    (tmp_path / "plain").write_text("")
    assert model_file.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_interrupted_training_goes_on(small_set, tmp_path):
    args = [sys.executable, "-m", "segnb.cli", "train", str(small_set), "--out", str(tmp_path / "m.safetensors"), "--epochs", "4", "--crop", "64", "64", "--bs", "4"]
    p = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    for line in p.stdout:
        if line.startswith("epoch   2/4"): break            # the state after the first is on the disk
    p.send_signal(signal.SIGINT)
    said = p.communicate(timeout=120)[0]
    assert p.returncode == 130 and "--resume goes on" in said and not (tmp_path / "m.safetensors").exists()
    again = segnb(*args[3:])
    assert again.returncode == 2 and "holds a training run that was interrupted" in again.stderr
    other = segnb(*args[3:], "--resume", "--lr", "0.001")
    assert other.returncode == 2 and "lr ([" in other.stderr and "Traceback" not in other.stderr
    assert len([l for l in other.stderr.strip().splitlines() if "training steps" not in l]) == 1
    rest = segnb(*args[3:], "--resume")
    assert rest.returncode == 0, rest.stderr
    assert "epoch   1/4" not in rest.stdout and "epoch   4/4" in rest.stdout
    assert (tmp_path / "m.safetensors").exists() and not (tmp_path / "m.training").exists()
    assert segnb(*args[3:], "--overwrite", "--resume").returncode == 2             # nothing is there to go on with


def test_threads_that_wait_sleep_soon_unless_the_user_decides(monkeypatch):
    from segnb.cli import main
    for policy, spin in ((None, "30000"), ("ACTIVE", None)):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        if policy is None: monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        else: monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        with pytest.raises(SystemExit): main(["--help"])
        assert os.environ.get("GOMP_SPINCOUNT") == spin
