"""Three ways to hold frames give the same batches; a file of frames is whole and current, or not used."""
import multiprocessing
import os
import re
import resource
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from segnb.all import SegDataLoader, SegDataLoaders, SegDataset, find_pairs
from segnb.frames import WAYS, Frames, frames_file, kept_bytes

fork = multiprocessing.get_context("fork")


@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty cache folder"
    monkeypatch.setenv("SEGNB_HOME", str(tmp_path / "home"))
    return tmp_path / "home/frames"


@pytest.fixture
def own_set(small_set, tmp_path):
    "A copy of the small set that may be changed"
    return Path(shutil.copytree(small_set, tmp_path / "own"))


@pytest.fixture
def reads(monkeypatch):
    "The pairs that were decoded in this process"
    seen, real = [], SegDataset.__getitem__
    def read(self, i):
        seen.append(self.images[i])
        return real(self, i)
    monkeypatch.setattr(SegDataset, "__getitem__", read)
    return seen


def equal(a, b):
    "Whether two sets of frames are the same, bit for bit"
    return len(a) == len(b) and all(torch.equal(x, y) for i in range(len(a)) for x, y in zip(a[i], b[i]))


def kept(home, end=".npy"): return sorted(o.name for o in home.glob(f"*{end}"))


# The same batches

def epochs(way, path, **kwargs):
    "All batches of two epochs of training and one of validation, for one seed"
    torch.manual_seed(1)
    dls = SegDataLoaders.from_path(path, crop=64, bs=5, device="cpu", frames=way, max_rotate=10, **kwargs)
    assert dls.train_ds.way == dls.valid_ds.way == way
    dls.train.rng.seed(1)
    return [b for dl in (dls.train, dls.train, dls.valid) for b in dl]


def mixed_sizes(path):
    for k, f in enumerate(sorted((path / "images").iterdir())):
        if k % 3: continue
        for g in (f, path / f"labels/{f.stem}_P.png"): Image.open(g).resize((100, 70), Image.NEAREST).save(g)


@pytest.mark.parametrize("kind,workers", [("one size", 2), ("several sizes", 1), ("weighted, resized", 0)])
def test_the_three_ways_give_the_same_batches(own_set, home, kind, workers):
    if kind == "several sizes": mixed_sizes(own_set)
    kwargs = dict(balance=True, focus=["Car"], size=(80, 96)) if kind == "weighted, resized" else {}
    n = dict(decode=workers)
    a, b, c = (epochs(way, own_set, num_workers=n.get(way), **kwargs) for way in WAYS)
    assert len(a) == len(b) == len(c) >= 2*3+2
    for p, *others in zip(a, b, c):
        for q in others: assert len(q) == 2 and torch.equal(p[0], q[0]) and torch.equal(p[1], q[1])
    assert len(kept(home)) == 4                                     # frames, and counts for decoding as drawn


def test_deep_images_of_many_channels_without_masks(tmp_path, home):
    rng = np.random.default_rng(0)
    for k in range(5): np.save(tmp_path / f"{k}.npy", rng.integers(0, 65536, (24, 32, 4), dtype=np.uint16))
    ds = SegDataset(sorted(tmp_path.glob("*.npy")), None, ["a", "b"], channels=4)
    frames = [Frames(ds, ways=w) for w in (*WAYS, "file")]
    assert frames[0][0][0].dtype == torch.float16 and all(equal(frames[0], o) for o in frames[1:])
    assert all(o.counts is None for o in frames)
    for bs in zip(*(SegDataLoader(o, bs=2, device="cpu") for o in frames)):
        assert all(len(b) == 1 and torch.equal(b[0], bs[0][0]) for b in bs)


def test_counts_are_the_same(small_set, home):
    ds, _ = find_pairs(small_set)
    counts = [Frames(ds, ways=w).counts for w in (*WAYS, "file", "decode")]
    assert all((c == counts[0]).all() and c.flags.writeable for c in counts) and counts[0].sum() > 0


# Which way

def test_the_size_decides(small_set, home, monkeypatch, capsys):
    ds, _ = find_pairs(small_set)
    frames = Frames(ds)
    assert frames.way == "memory" and not capsys.readouterr().out
    gb = frames.nbytes/2**30
    assert Frames(ds, gb).way == "memory" and Frames(ds, .99*gb).way == "file"
    line, = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"24 frames, 1 MB, decoded once, into .*/home/frames/\w+-\w+\.npy", line)
    assert Frames(ds, 0).way == "file" and "read from" in capsys.readouterr().out
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")                     # memory is shared by the processes
    assert Frames(ds, gb).way == "file" and Frames(ds, 2*gb).way == "memory"
    assert Frames(ds, 0, "memory").way == "memory" and Frames(ds, ways="decode").way == "decode"
    with pytest.raises(ValueError, match="choose among"): Frames(ds, ways="disk")


def test_more_than_the_memory(small_set, home, monkeypatch):
    ds, _ = find_pairs(small_set)
    monkeypatch.setattr("segnb.frames._free_memory", lambda: 100_000)
    assert Frames(ds).way == "file"
    with pytest.raises(MemoryError, match="not fit in memory, of which 0 MB"): Frames(ds, ways="memory")


def test_loaders_pass_it_on(small_set, home):
    dls = SegDataLoaders.from_path(small_set, crop=64, bs=4, device="cpu", frames="decode", num_workers=1)
    assert (dls.train.workers, dls.valid.workers, dls.train.new().workers) == (1, 1, 1)
    small = dls.resized((64, 64))
    assert small.train_ds.way == "decode" and small.train.workers == 1
    assert small.train.one_batch()[0].shape[0] == 4
    images = list(dls.valid_ds.ds.images)
    assert dls.test_dl(images).dataset.way == "memory"
    dls.valid_ds.memory_gb = 0
    assert dls.test_dl(images).dataset.way == "decode" and len(kept(home)) == 4


def test_a_broken_image_is_named_and_no_worker_stays(own_set, home):
    dls = SegDataLoaders.from_path(own_set, crop=64, bs=4, device="cpu", frames="decode", num_workers=2)
    for b in dls.train: break                                       # and the others are not drawn
    bad = dls.valid_ds.ds.images[3]
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(ValueError, match=f"^{bad}: cannot be read as an image"): list(dls.valid)
    until = time.time()+10
    while psutil.Process().children() and time.time() < until: time.sleep(.05)
    assert not psutil.Process().children()


# The file

def test_the_file_is_used_again_until_a_source_changes(own_set, home, reads):
    ds, _ = find_pairs(own_set)
    first = Frames(ds, ways="file")
    assert len(reads) == 24
    again = Frames(ds, ways="file")
    assert equal(first, again) and len(reads) == 24+8               # a few are read for warnings
    name, = kept(home)
    image, mask = ds.images[5], ds.masks[5]
    stat = image.stat()
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns+1))      # only the time
    assert frames_file(ds).name != name
    Image.fromarray(255-np.asarray(Image.open(image))).save(image)
    third = Frames(ds, ways="file")
    assert torch.equal(third[5][0], 255-first[5][0]) and equal(first, again)      # mapped, and still there
    second, = kept(home)
    assert second != name and second.partition("-")[0] == name.partition("-")[0]
    stat = mask.stat()
    Image.open(mask).save(mask, compress_level=0)                   # only the size
    os.utime(mask, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    Frames(ds, ways="file")
    assert kept(home) != [second] and len(kept(home)) == 1


def test_other_options_have_another_file(small_set, home):
    ds, _ = find_pairs(small_set)
    sets = [ds, ds.subset(range(5)), ds.at_size((64, 64)), find_pairs(small_set, size=64, resize="crop")[0],
            find_pairs(small_set, void=["Car"])[0], SegDataset(ds.images, None, ds.codes)]
    files = {frames_file(o).name.partition("-")[0] for o in sets}
    assert len(files) == len(sets) and frames_file(find_pairs(small_set)[0]) == frames_file(ds)


@pytest.mark.parametrize("damage", ["cut", "empty", "cut in its header", "another file"])
def test_a_damaged_file_is_not_trusted(small_set, home, damage):
    ds, _ = find_pairs(small_set)
    right = Frames(ds, ways="memory")
    fn = frames_file(ds)
    Frames(ds, ways="file")
    whole = fn.read_bytes()
    damaged = {"cut": whole[:-1], "empty": b"", "cut in its header": whole[:60],
               "another file": b"x"*len(whole)}
    fn.write_bytes(damaged[damage])
    assert equal(Frames(ds, ways="file"), right) and fn.read_bytes() == whole


def test_it_is_not_written_to(small_set, home):
    ds, _ = find_pairs(small_set)
    frames = Frames(ds, ways="file")
    before = frames_file(ds).read_bytes()
    for o in (*frames[0], *frames.batch([0, 1])): o.zero_()
    frames.same_size = False
    for o in frames.batch([0, 1])[0]: o.zero_()
    frames.counts[:] = 0
    assert frames_file(ds).read_bytes() == before


def test_own_classes_are_not_kept_in_a_file(small_set, home, capsys):
    class Dark(SegDataset):
        def _image(self, i): return super()._image(i).point(lambda v: v//2)
    ds, _ = find_pairs(small_set)
    dark = Dark(ds.images, ds.masks, ds.codes)
    frames = Frames(dark, 0)
    assert frames.way == "decode" and "Dark is a class of your own" in capsys.readouterr().out
    assert int(frames[0][0].max()) < 128 and (frames.counts == Frames(ds).counts).all()
    with pytest.raises(OSError, match="Dark is a class of your own"): Frames(dark, ways="file")


# Disks and folders

def test_a_full_disk(small_set, home, capsys):
    "Writing fails in the middle, and nothing stays behind"
    ds, _ = find_pairs(small_set)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        frames = Frames(ds, 0)
        with pytest.raises(OSError, match=r"be kept in .*File too large.*SEGNB_HOME"): Frames(ds, ways="file")
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert frames.way == "decode" and equal(frames, Frames(ds))
    assert "decoded as they are drawn: the decoded frames cannot be kept" in capsys.readouterr().out
    assert len(kept(home)) == 1 and not kept(home, ".tmp")          # the counts


def test_room_is_asked_for_before_anything_is_decoded(small_set, home, monkeypatch, reads):
    ds, _ = find_pairs(small_set)
    free = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: free._replace(free=10_000))
    with pytest.raises(OSError, match="are needed, and .* has room for 0 MB"): Frames(ds, ways="file")
    assert not reads and Frames(ds, 0).way == "decode"


@contextmanager
def ordinary_user():
    "What a folder permits does not count for root"
    if os.geteuid(): yield
    else:
        os.seteuid(65534)
        try: yield
        finally: os.seteuid(0)


def test_a_folder_that_may_only_be_read(small_set, monkeypatch, capsys):
    with tempfile.TemporaryDirectory() as folder:
        for o in (small_set, *small_set.parents):
            if o.stat().st_uid == os.geteuid(): o.chmod(o.stat().st_mode | 0o555)
        home = Path(folder) / "home"
        monkeypatch.setenv("SEGNB_HOME", str(home))
        (home / "frames").mkdir(parents=True)
        Path(folder).chmod(0o755)
        (home / "frames").chmod(0o555)
        ds, _ = find_pairs(small_set)
        with ordinary_user():
            drawn = Frames(ds, 0)
            assert drawn.way == "decode" and "Permission denied" in capsys.readouterr().out
            with pytest.raises(OSError, match="Permission denied.*SEGNB_HOME"): Frames(ds, ways="file")
        (home / "frames").chmod(0o755)
        Frames(ds, ways="file")
        (home / "frames").chmod(0o555)
        with ordinary_user(): assert Frames(ds, ways="file").way == "file"          # what is there is used
        (home / "frames").chmod(0o755)


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null/x"])
def test_a_folder_that_cannot_be_made(small_set, monkeypatch, home):
    monkeypatch.setenv("SEGNB_HOME", home)
    ds, _ = find_pairs(small_set)
    assert Frames(ds, 0).way == "decode"
    with pytest.raises(OSError, match="cannot be kept in"): Frames(ds, ways="file")


# Several processes

def in_process(work, *args):
    "A function in a process of its own, by fork"
    p = fork.Process(target=work, args=args)
    p.start()
    return p


def write_slowly(fn, log, name, pause):
    "Fill a file of a megabyte, taking notes of who did"
    def fill(put):
        with open(log, "a") as f: f.write(name)
        for k in range(4):
            put(k*2**18, np.full(2**18, k, dtype=np.uint8))
            time.sleep(pause)
    row = kept_bytes(fn, 2**20, fill)
    assert row.view(4, -1).min(1)[0].tolist() == row.view(4, -1).max(1)[0].tolist() == [0, 1, 2, 3]


def wait_for(pattern, folder, seconds=20):
    until = time.time()+seconds
    while not list(folder.glob(pattern)) and time.time() < until: time.sleep(.01)


def test_two_that_write_at_once(tmp_path):
    ps = [in_process(write_slowly, tmp_path / "a-1.npy", tmp_path / "log", n, .1) for n in "xy"]
    for p in ps: p.join(60)
    assert [p.exitcode for p in ps] == [0, 0] and len((tmp_path / "log").read_text()) == 1
    assert sorted(o.name for o in tmp_path.glob("*.npy")) == ["a-1.npy"] and not list(tmp_path.glob(".*"))


def test_one_that_is_killed_while_it_writes(tmp_path):
    fn, log = tmp_path / "a-1.npy", tmp_path / "log"
    slow = in_process(write_slowly, fn, log, "x", 30)
    wait_for(".a-1*.tmp", tmp_path)
    waits = in_process(write_slowly, fn, log, "y", 0)
    time.sleep(.3)
    assert waits.is_alive() and not fn.exists()
    os.kill(slow.pid, signal.SIGKILL)
    waits.join(60)
    assert waits.exitcode == 0 and fn.exists() and log.read_text() == "xy" and not list(tmp_path.glob(".*"))


def test_frames_made_by_two_processes_at_once(small_set, home):
    ds, _ = find_pairs(small_set)
    right = Frames(ds, ways="memory")
    def work():
        if not equal(Frames(ds, ways="file"), right): os._exit(1)
    ps = [in_process(work) for _ in range(2)]
    for p in ps: p.join(60)
    assert [p.exitcode for p in ps] == [0, 0] and len(kept(home)) == 1
