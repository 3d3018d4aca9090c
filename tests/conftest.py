import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"                    # no test asks the network,
os.environ["HF_HOME"] = tempfile.mkdtemp()            # nor what an earlier one left behind

root = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    "A street set that is drawn in a second: 6 clips of 4 frames, 96x128"
    from segnb.streets import streets
    return streets(tmp_path_factory.mktemp("data") / "small", n_clips=6, n_frames=4, size=(96, 128), n_valid=2, seed=1)


@pytest.fixture(scope="session")
def model_file(small_set, tmp_path_factory):
    "A model file: one epoch on the small set"
    from segnb.all import SegDataLoaders, seg_learner
    dls = SegDataLoaders.from_path(small_set, crop=(64, 64), bs=4, device="cpu")
    learn = seg_learner(dls)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 2e-3)
    return learn.save_model(tmp_path_factory.mktemp("model") / "m.safetensors")


def segnb(*args, cwd=None, code=None):
    "Run the command in a process of its own"
    cmd = [sys.executable, "-c", code] if code else [sys.executable, "-m", "segnb.cli", *map(str, args)]
    return subprocess.run(cmd, capture_output=True, text=True, cwd=cwd or root)
