"""Trainings that are killed at any moment and go on end with the weights of one that was not."""
import multiprocessing as mp, os, random, time
from pathlib import Path

import numpy as np, pytest

KILLS = int(os.environ.get("SEGNB_KILLS", 6))           # in all; SEGNB_KILLS=20 for the long version
EPOCHS = 5


def train(data, folder, out):
    "A small training with checkpoints in `folder`; its weights go to `out`"
    import torch
    from segnb.all import SegDataLoaders, SegLearner, UNet
    torch.set_num_threads(1)
    torch.manual_seed(0); np.random.seed(0); random.seed(0)
    dls = SegDataLoaders.from_path(data, crop=(32, 48), bs=4, size=(48, 64), device="cpu")
    dls.train.rng.seed(0); dls.valid.rng.seed(0)
    learn = SegLearner(dls, UNet(3, 11, width=8, depth=3, pad=True, norm=True), precision="fp32")
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(EPOCHS, 1e-2, resume=folder)
    np.save(out, np.concatenate([o.detach().float().numpy().ravel() for o in learn.model.state_dict().values()]))


@pytest.fixture(scope="module")
def start():
    "Starts a training in a process of its own that has everything imported already"
    ctx = mp.get_context("forkserver")
    ctx.set_forkserver_preload(["segnb.all", "test_resume"])
    def go(*args):
        p = ctx.Process(target=train, args=args)
        p.start()
        return p
    return go


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from segnb.all import streets
    return streets(n_clips=6, n_frames=6, size=(48, 64), n_valid=2)


def test_killed_at_any_moment(start, data, tmp_path):
    whole = start(data, tmp_path / "whole", tmp_path / "whole.npy")
    begin = time.time()
    whole.join(120)
    seconds, wanted = time.time() - begin, np.load(tmp_path / "whole.npy")
    rng, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        folder, out = tmp_path / f"run{runs}", tmp_path / f"run{runs}.npy"
        for _ in range(3):                                  # the same training is killed up to three times
            p = start(data, folder, out)
            p.join(rng.uniform(.05, .95) * seconds)
            if p.is_alive():
                p.kill(); p.join()
                kills += 1
        last = start(data, folder, out)
        last.join(120)
        assert last.exitcode == 0
        assert np.array_equal(np.load(out), wanted), f"training {runs} ended with other weights"
        runs += 1
    assert not np.array_equal(wanted, np.zeros_like(wanted))


def test_an_unwritable_folder_is_told_before_the_first_batch(data, tmp_path):
    from segnb.all import SegDataLoaders, SegLearner, UNet
    (tmp_path / "file").write_text("")
    dls = SegDataLoaders.from_path(data, crop=(32, 48), bs=4, size=(48, 64), device="cpu")
    learn = SegLearner(dls, UNet(3, 11, width=4, depth=2, pad=True))
    with learn.no_bar(), learn.no_logging(), pytest.raises(OSError, match="file"): learn.fit_one_cycle(1, 1e-3, resume=tmp_path / "file" / "run")
    assert learn.recorder.losses == []


def test_a_full_disk_later_loses_nothing(data, tmp_path, monkeypatch, capsys):
    import segnb.checkpoint
    from segnb.all import SegDataLoaders, SegLearner, UNet
    dls = SegDataLoaders.from_path(data, crop=(32, 48), bs=4, size=(48, 64), device="cpu")
    learn, real, calls = SegLearner(dls, UNet(3, 11, width=4, depth=2, pad=True), metrics=[]), segnb.checkpoint.save_tensors, []

    def full(*args):
        calls.append(1)
        if len(calls) == 3: raise OSError(28, "No space left on device")
        return real(*args)
    monkeypatch.setattr(segnb.checkpoint, "save_tensors", full)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-3, resume=tmp_path / "run")
    assert "No space left" in capsys.readouterr().out and len(calls) == 4
    assert segnb.checkpoint.read_checkpoint(tmp_path / "run" / "last.safetensors")[1]["done"] == 3


def test_checkpoints_run_no_code(tmp_path):
    import pickle
    from segnb.checkpoint import read_checkpoint
    class Evil:
        def __reduce__(self): return (os.system, (f"touch {tmp_path}/ran",))
    f = tmp_path / "last.safetensors"
    for content in (pickle.dumps(Evil()), b"", b"\x00"*100, b"{}"):
        f.write_bytes(content)
        with pytest.raises(ValueError, match="not a checkpoint"): read_checkpoint(f)
    assert not (tmp_path / "ran").exists()
