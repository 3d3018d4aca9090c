"""Clips: any length in bounded memory, damaged files, odd sizes, the command."""
import csv

import numpy as np
import pytest
from PIL import Image

from conftest import segnb

av = pytest.importorskip("av")


def clip(fn, images, fps=10, codec="ffv1", fmt="bgr0"):
    "A clip of images; FFV1 keeps every bit"
    with av.open(str(fn), "w") as out:
        s = out.add_stream(codec, rate=fps)
        s.width, s.height, s.pix_fmt = *images[0].size, fmt
        for im in images: out.mux(s.encode(av.VideoFrame.from_image(im)))
        out.mux(s.encode())
    return fn


@pytest.fixture(scope="module")
def images(small_set): return [Image.open(f) for f in sorted((small_set / "images").glob("*.png"))[:12]]


@pytest.fixture(scope="module")
def tiny():
    import torch
    from segnb.masks import Codes
    from segnb.model_file import SegModel
    from segnb.streets import street_codes
    from segnb.unet import UNet
    torch.manual_seed(0)
    return SegModel(UNet(3, 11, width=4, depth=2, pad=True, norm=True), Codes(street_codes), half=False)


def test_the_command_equals_frame_by_frame_predictions(images, model_file, tmp_path):
    from segnb.model_file import load_model
    f = clip(tmp_path / "drive.mkv", images)
    got = segnb("predict", model_file, f, "--out", tmp_path / "out", "--fps", 5)
    assert got.returncode == 0, got.stderr
    with open(tmp_path / "out/drive.csv", newline="") as t: rows = list(csv.reader(t))
    m = load_model(model_file)
    assert rows[0] == ["frame", "seconds", *m.classes] and len(rows) == 7
    for row, k in zip(rows[1:], range(0, 12, 2)):
        share = np.bincount(m.predict(images[k]).ravel(), minlength=11) / (96 * 128)
        assert row == [str(k), str(k / 10), *map(str, share.tolist())]
    with av.open(str(tmp_path / "out/drive_overlay.mp4")) as v:
        frames = list(v.decode(video=0))
        assert len(frames) == 6 and (frames[0].width, frames[0].height) == (128, 96)
    got = segnb("predict", model_file, f, "--out", tmp_path / "out")
    assert got.returncode == 2 and "already there" in got.stderr
    (tmp_path / "bad.mp4").write_bytes(b"no video at all" * 50)
    got = segnb("predict", model_file, tmp_path / "bad.mp4", f, "--out", tmp_path / "two", "--no-overlays")
    assert got.returncode == 1 and "bad.mp4: cannot be read as a video" in got.stderr
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["drive.csv"]


def test_memory_is_flat(images, tiny, tmp_path):
    "Eight times as many frames take as much memory: a list of them would take 28 MB more"
    from segnb.core import peak_memory
    from segnb.video import predict_video
    big = [im.resize((384, 288)) for im in images]
    short, long = (clip(tmp_path / f"{n}.mp4", big * n, codec="mpeg4", fmt="yuv420p") for n in (1, 8))
    tiny.size, old = (96, 128), tiny.size                       # predicted small, kept large
    taken = []
    try:
        for f in (short, short, long):
            with peak_memory() as mb: predict_video(tiny, f, tmp_path / "out", overlays=False, overwrite=True)
            taken.append(mb[0])
    finally: tiny.size = old
    assert not taken[1] == taken[1] or taken[2] < taken[1] + 12, taken


def test_a_generator_decodes_only_what_is_asked_for(images, tiny, tmp_path):
    from segnb.video import predict_clip
    f = clip(tmp_path / "c.mkv", images * 20)
    asked = []
    real = tiny.predict
    tiny.predict = lambda *a: asked.append(1) or real(*a)
    try:
        results = predict_clip(tiny, f)
        k, t, im, mask = next(results)
        assert (k, t, len(asked)) == (0, 0, 1) and mask.shape == (96, 128)
        results.close()
    finally: del tiny.predict


def test_smoothing_stops_flicker_and_lags(images, tiny, tmp_path):
    from segnb.video import predict_clip
    a, b = images[0], images[5]
    f = clip(tmp_path / "flip.mkv", [a, b] * 6)
    def changes(smooth): 
        maps = [m for *_, m in predict_clip(tiny, f, smooth=smooth)]
        return np.mean([(p != q).mean() for p, q in zip(maps, maps[1:])])
    assert changes(5) < changes(.3) < changes(0)
    with pytest.raises(ValueError, match="smooth=-1"): next(predict_clip(tiny, f, smooth=-1))
    with pytest.raises(ValueError, match="fps=0"): next(predict_clip(tiny, f, fps=0))


def test_odd_sizes(images, tiny, tmp_path):
    from segnb.video import predict_video
    f = clip(tmp_path / "odd.mkv", [im.resize((65, 49)) for im in images[:3]])
    table, video = predict_video(tiny, f, tmp_path / "out")
    with av.open(str(video)) as v: assert [(o.width, o.height) for o in v.decode(video=0)] == [(66, 50)] * 3


def test_files_that_are_not_clips(tiny, tmp_path):
    from segnb.video import clip_frames, predict_video
    with pytest.raises(FileNotFoundError): next(clip_frames(tmp_path / "none.mp4"))
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        s = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        out.mux(s.encode(frame))
        out.mux(s.encode())
    with pytest.raises(ValueError, match="no video in this file"): next(clip_frames(tmp_path / "sound.mkv"))
    with pytest.raises(ValueError): predict_video(tiny, tmp_path / "sound.mkv", tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_a_clip_that_is_cut_off_gives_what_is_there(images, tiny, tmp_path):
    from segnb.video import predict_video
    f = clip(tmp_path / "whole.mkv", images)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(f.read_bytes()[:f.stat().st_size // 2])
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table, = predict_video(tiny, cut, tmp_path / "out", overlays=False)
    rows = table.read_text().splitlines()
    assert 2 < len(rows) < 12


def test_without_pyav_the_message_names_the_extra(monkeypatch, tmp_path):
    import sys
    from segnb.video import clip_frames
    (tmp_path / "a.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"segnb\[video\]"): next(clip_frames(tmp_path / "a.mp4"))


def test_an_upright_clip_of_a_phone(images, monkeypatch, tmp_path):
    "Stored as landscape, with the angle by which it is to be turned"
    from segnb.video import clip_frames
    f = clip(tmp_path / "a.mkv", images[:2])
    plain = [im for *_, im in clip_frames(f)]
    class Turned:
        def __init__(self, frame): self.frame, self.time, self.rotation = frame, frame.time, -90
        def to_image(self): return self.frame.to_image()
    import segnb.video
    opened = segnb.video._opened
    class Clip:
        def __init__(self, clip): self.clip = clip
        def __enter__(self): return self
        def __exit__(self, *_): self.clip.close()
        def decode(self, s): return map(Turned, self.clip.decode(s))
    def turned(fn):
        c, s = opened(fn)
        return Clip(c), s
    monkeypatch.setattr(segnb.video, "_opened", turned)
    for (*_, im), p in zip(clip_frames(f), plain): assert im.size == p.size[::-1] and im == p.rotate(-90, expand=True)


def test_two_clips_of_one_name(images, model_file, tmp_path, capsys):
    from segnb.cli import main
    for d in ("a", "b"):
        (tmp_path / d).mkdir()
        clip(tmp_path / d / "x.mkv", images[:2])
    clips = [str(tmp_path / d / "x.mkv") for d in ("a", "b")]
    assert main(["predict", str(model_file), *clips, "--out", str(tmp_path / "out"), "--overwrite"]) == 2
    assert "several files are called x" in capsys.readouterr().err and not list((tmp_path / "out").glob("*"))
