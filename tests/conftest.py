import contextlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture(scope="module")
def browser():
    "A Chromium, driven by playwright; the test is skipped where there is none"
    playwright = pytest.importorskip("playwright.sync_api")
    sys.path.insert(0, str(root / "tools"))
    import browser as browsers
    exe = browsers.find()
    if exe is None: pytest.skip("no Chromium here: `make test` fetches one")
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=exe, args=["--no-sandbox", "--disable-gpu"])
        yield b
        b.close()


def segnb(*args, cwd=None, code=None):
    "Run the command: here, which saves the seconds of importing torch; or `code`, in a process of its own"
    if code: return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd or root)
    import torch
    from segnb.cli import main
    out, err, threads, line = io.StringIO(), io.StringIO(), torch.get_num_threads(), warnings.formatwarning
    with contextlib.chdir(cwd or root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda m, c, f, n, *_: err.write(warnings.formatwarning(m, c, f, n))
        try: status = main([str(a) for a in args])
        except SystemExit as e: status = e.code
        finally:
            torch.set_num_threads(threads)
            warnings.formatwarning = line
    return SimpleNamespace(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


def segnb_process(*args, cwd=None):
    "The command as a user starts it"
    return subprocess.run([sys.executable, "-m", "segnb.cli", *map(str, args)], capture_output=True, text=True, cwd=cwd or root)
