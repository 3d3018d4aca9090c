"Training in two processes on a CPU: the same gradients and scores as in one, and what happens when one is killed"
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segnb.cli import main

here = Path(__file__).resolve().parent
env = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_processes_compute_what_one_does(small_set):
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", here / "files/together.py", small_set],
                         env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0 and "equal" in run.stderr, run.stderr[-3000:]


def test_a_killed_process_ends_the_run_and_it_goes_on(small_set, tmp_path):
    out = tmp_path / "m.safetensors"
    command = [sys.executable, "-m", "segnb.cli", "train", str(small_set), "--procs", "2", "--epochs", "4", "--bs", "4", "--crop", "64", "64",
               "--encoder", "tf_efficientnet_lite0", "--precision", "fp32", "--out", str(out), "--frames", "file"]
    home = {**env, "SEGNB_HOME": str(tmp_path / "home")}
    run = subprocess.Popen(command, cwd=here.parent, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    last = out.with_suffix(".training") / "last.safetensors"
    for line in run.stdout:
        if line.startswith("epoch   1"): break
    both = sorted(tmp_path.glob("home/frames/*.npy"))                # training and validation frames
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if "segnb.cli" in p.cmdline() and "--nproc-per-node" not in p.cmdline()]
    assert len(workers) == 2 and last.exists() and len(both) == 2
    for p in workers: assert {str(f) for f in both} <= {m.path for m in p.memory_maps()}
    start = time.time()
    workers[1].send_signal(signal.SIGKILL)
    _, err = run.communicate(timeout=60)
    assert run.returncode and "--resume goes on" in err and time.time()-start < 60
    again = subprocess.run([*command, "--resume"], cwd=here.parent, env=home, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and out.exists() and not last.exists(), again.stderr[-3000:]
    assert again.stdout.count(" MB, read from ") == 2 and sorted(tmp_path.glob("home/frames/*.npy")) == both
    assert again.stdout.count("pixel accuracy") >= 1 and "epoch   1" not in again.stdout and again.stdout.count("epoch   4") == 1


def test_another_number_of_processes_is_named(small_set, tmp_path, monkeypatch):
    import segnb.checkpoint
    from segnb.all import SegDataLoaders, seg_learner
    dls = SegDataLoaders.from_path(small_set, crop=(32, 32), bs=8, device="cpu")
    learn = seg_learner(dls, pretrained=False, precision="fp32")
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3, resume=tmp_path)
        monkeypatch.setattr(segnb.checkpoint, "process", lambda: (0, 2))
        monkeypatch.setattr("torch.distributed.barrier", lambda: None)
        with pytest.raises(ValueError, match=r"processes \(1 then, 2 now\)"): learn.fit_one_cycle(1, 1e-3, resume=tmp_path)


def test_threshold_needs_one_process(small_set, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("segnb.processes.alone", lambda: (True, True))
    assert main(["train", str(small_set), "--threshold", "--out", str(tmp_path / "m.safetensors")]) == 2
    assert "leave out --procs" in capsys.readouterr().err
