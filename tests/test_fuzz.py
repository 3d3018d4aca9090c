"""Files with damaged bytes: everything that reads a file gives a result or a `ValueError` that names it, and nothing else.

`SEGNB_FUZZ=10000` runs that many cases of each kind."""
import io, os, random, time, warnings

import numpy as np, pytest
from PIL import Image

from segnb.check import pair_facts
from segnb.checkpoint import read_checkpoint
from segnb.core import read_image
from segnb.dataset import SegDataset
from segnb.masks import Codes
from segnb.model_file import load_model

CASES = int(os.environ.get("SEGNB_FUZZ", 300))
FORMATS = {"png": {}, "jpg": dict(format="JPEG"), "gif": {}, "bmp": {}, "tif": dict(format="TIFF", compression="tiff_lzw"), "webp": dict(lossless=True)}


def damaged(data, rng):
    "Bytes flipped, cut off, doubled, or put together anew"
    b = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        kind, at = rng.randrange(4), rng.randrange(max(1, len(b)))
        if kind == 0: b[at:at+1] = bytes([rng.randrange(256)])
        elif kind == 1: del b[at:at + rng.randrange(1, 50)]
        elif kind == 2: b[at:at] = b[at:at + rng.randrange(1, 50)]
        else: b[at:at+4] = rng.choice((b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff"))
    return bytes(b[:rng.randrange(len(b)+1)]) if rng.random() < .2 else bytes(b)


def image_bytes(mode, suffix):
    a = np.random.default_rng(0).integers(0, 11, (24, 32), dtype=np.uint8)
    buf, im = io.BytesIO(), Image.fromarray(a).convert(mode)
    im.save(buf, **{"format": suffix.upper(), **FORMATS[suffix]})
    return buf.getvalue()


def run(cases, sources, read, fn):
    "Read damaged copies of `sources`; returns how many were read and how many refused"
    rng, good, refused, slowest = random.Random(1), 0, 0, 0.
    for _ in range(cases):
        fn.write_bytes(damaged(rng.choice(sources), rng))
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(fn)
            good += 1
        except ValueError as e:
            assert str(fn) in str(e), e
            refused += 1
        slowest = max(slowest, time.perf_counter()-start)
    assert slowest < 20 and good + refused == cases and refused > cases//20
    print(f"{cases} files: {good} read, {refused} refused, slowest {slowest:.2f} s")


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_images(tmp_path, suffix):
    run(CASES//len(FORMATS), [image_bytes("RGB", suffix), image_bytes("L", suffix)], read_image, tmp_path / f"damaged.{suffix}")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_damaged_masks(tmp_path, mode):
    good = tmp_path / "image.png"
    Image.new("RGB", (32, 24)).save(good)
    def read(fn): return SegDataset([good], [fn], Codes([f"c{i}" for i in range(11)])).mask(0)
    run(CASES//2, [image_bytes(mode, "png")], read, tmp_path / "damaged.png")


def test_the_doctor_reads_everything(tmp_path):
    rng, fn = random.Random(2), tmp_path / "damaged.png"
    source = [image_bytes("RGB", "png"), image_bytes("L", "png"), image_bytes("P", "gif")]
    for _ in range(CASES):
        fn.write_bytes(damaged(rng.choice(source), rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for facts in pair_facts(fn, fn): assert "error" in facts or "size" in facts


def test_damaged_model_files(model_file, tmp_path):
    whole = open(model_file, "rb").read()
    start = int.from_bytes(whole[:8], "little") + 8
    head = whole[:start]                                    # what can do harm is in the header; the rest is numbers
    rng, fn, refused = random.Random(3), tmp_path / "damaged.safetensors", 0
    for _ in range(max(20, CASES//50)):
        fn.write_bytes(damaged(head, rng) + whole[start:])
        try: load_model(fn, device="cpu")
        except ValueError as e:
            assert str(fn) in str(e)
            refused += 1
    assert refused > 5


def test_damaged_checkpoints(tmp_path):
    import torch
    from safetensors.torch import save
    whole = save({"rng.torch": torch.zeros(16, dtype=torch.uint8)}, {"segnb-training": '{"format": 1, "done": 3, "about": {}}'})
    run(CASES, [whole], read_checkpoint, tmp_path / "last.safetensors")
