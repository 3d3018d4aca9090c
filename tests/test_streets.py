"""The drawn data set: any size, several processes at once, interruption, other people's folders."""
import hashlib
import multiprocessing as mp
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from segnb.streets import draw_frame, random_scene, streets

tiny = dict(n_clips=4, n_frames=3, size=(64, 96), n_valid=1)


def digest(folder):
    files = sorted(o for o in Path(folder).rglob("*") if o.is_file())
    return hashlib.sha1(b"".join(o.relative_to(folder).as_posix().encode() + o.read_bytes() for o in files)).hexdigest()


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 512), (200, 40), (360, 480)])
def test_any_size(size):
    for k in range(4):
        scene = random_scene(np.random.default_rng([k, 1]))
        for t in (0, 7, 60):
            img, mask = draw_frame(scene, t, size)
            assert img.shape == (*size, 3) and mask.shape == size
            assert img.dtype == mask.dtype == np.uint8 and mask.max() < 12


def test_three_processes_draw_one_set_with_the_same_bytes(tmp_path):
    code = f"import sys; from segnb.streets import streets; streets(sys.argv[1], **{tiny})"
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.DEVNULL) for _ in range(3)]
    assert all(p.wait() == 0 for p in running)
    assert [o.name for o in tmp_path.iterdir()] == ["a"]
    assert digest(tmp_path / "a") == digest(streets(tmp_path / "b", **tiny, workers=1))
    assert digest(tmp_path / "a") != digest(streets(tmp_path / "c", **tiny, seed=7))


def test_interrupted_drawing_leaves_nothing(tmp_path):
    p = subprocess.Popen([sys.executable, "-c", f"from segnb.streets import streets; streets({str(tmp_path / 'a')!r}, n_clips=60)"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 60
    while not list(tmp_path.glob("*/images/*")) and time.time() < deadline: time.sleep(.05)
    p.send_signal(signal.SIGINT)
    assert p.wait(20) != 0
    deadline = time.time() + 10
    while list(tmp_path.iterdir()) and time.time() < deadline: time.sleep(.1)
    assert not list(tmp_path.iterdir())


def _draw(path): streets(path, n_clips=2, n_frames=1, size=(32, 32), n_valid=1)


def test_inside_a_daemon_process(tmp_path):
    p = mp.get_context("fork").Process(target=_draw, args=(tmp_path / "a",), daemon=True)
    p.start(); p.join()
    assert p.exitcode == 0 and (tmp_path / "a/codes.txt").exists()


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "x").mkdir(); (tmp_path / "x/thesis.txt").write_text("three years")
    with pytest.raises(FileExistsError, match="x"): streets(tmp_path / "x")
    assert (tmp_path / "x/thesis.txt").read_text() == "three years"
    (tmp_path / "e").mkdir(); _draw(tmp_path / "e")
    with pytest.raises(FileExistsError, match="drawn with"): streets(tmp_path / "e")


@pytest.mark.parametrize("kw", [dict(size=(31, 64)), dict(n_valid=26), dict(n_clips=0)])
def test_options_that_cannot_be(tmp_path, kw):
    with pytest.raises(ValueError): streets(tmp_path / "q", **kw)
