"""Every fault that `check_data` knows, made by code, is found under its name and its file."""
import shutil, time

import numpy as np, pytest
from PIL import Image

from segnb.check import kinds, check_data
from segnb.masks import mask_numbers


@pytest.fixture
def data(tmp_path):
    from segnb.all import streets
    shutil.copytree(streets(n_clips=5, n_frames=3, size=(96, 128), n_valid=2), tmp_path / "set")
    return tmp_path / "set"


def pair(data, i=0):
    "A training pair that is in no list of validation images"
    held = {n.strip() for n in (data / "valid.txt").read_text().split()}
    pics = [p for p in sorted((data / "images").iterdir()) if p.name not in held and p.stem not in held]
    return pics[i], data / "labels" / f"{pics[i].stem}_P.png"


def grey(mask): return Image.fromarray(mask_numbers(mask))


def held_image(data): return next(p for p in sorted((data / "images").iterdir()) if p.stem in (data / "valid.txt").read_text() or p.name in (data / "valid.txt").read_text())


def no_mask(d, p, m): m.unlink()
def truncated(d, p, m): p.write_bytes(p.read_bytes()[:1500])
def empty(d, p, m): p.write_bytes(b"")
def text(d, p, m): p.write_text("not an image")
def truncated_mask(d, p, m): m.write_bytes(m.read_bytes()[:200])
def half(d, p, m): grey(m).resize((64, 48), Image.NEAREST).save(m)
def unknown(d, p, m): Image.fromarray(np.where(mask_numbers(m) == 1, 77, mask_numbers(m)).astype(np.uint8)).save(m)
def smooth(d, p, m): grey(m).resize((64, 48), Image.BILINEAR).resize((128, 96), Image.BILINEAR).save(m)
def jpeg(d, p, m): grey(m).save(m.with_suffix(".jpg"), quality=90); m.unlink()
def colours(d, p, m):
    from segnb.draw import colorize
    Image.fromarray(colorize(mask_numbers(m), 11)).save(m)
def nothing(d, p, m): Image.fromarray(np.full((96, 128), 255, np.uint8)).save(m)
def single(d, p, m): Image.fromarray(np.full((96, 128), 3, np.uint8)).save(m)
def both(d, p, m): shutil.copy(p, held_image(d))
def nearly(d, p, m): Image.fromarray(np.asarray(Image.open(p).convert("RGB"))//2*2).save(held_image(d))
def lying(d, p, m): e = Image.Exif(); e[274] = 6; Image.open(p).save(p, exif=e)
def film(d, p, m): Image.open(p).save(p, save_all=True, append_images=[Image.new("RGB", (128, 96))])
def capitals(d, p, m): m.rename(m.with_name(m.name.upper().replace(".PNG", ".png")))
def accents(d, p, m): p.rename(p.with_name("\u00fcber.png")); m.rename(m.with_name("u\u0308ber_P.png"))
def orphan(d, p, m): p.unlink()
def alpha(d, p, m): Image.open(p).convert("RGBA").save(p)
def cmyk(d, p, m): Image.open(p).convert("CMYK").save(p.with_suffix(".jpg")); p.unlink()
def deep(d, p, m): Image.fromarray(np.full((96, 128), 40000, np.uint16)).save(p)
def other_mode(d, p, m): g = grey(m); g.putpalette(bytes(range(256))*3); g.save(m)
def absent(d, p, m): (d / "codes.txt").write_text((d / "codes.txt").read_text().rstrip("\n") + "\nUnicorn\n")
def no_split(d, p, m): (d / "valid.txt").unlink()
def misspelt(d, p, m): (d / "valid.txt").write_text((d / "valid.txt").read_text().rstrip("\n") + "\nnosuch.png\n")
def all_held(d, p, m): (d / "valid.txt").write_text("\n".join(o.name for o in (d / "images").iterdir()))
def strange_numbers(d, p, m): (d / "codes.txt").unlink(); Image.fromarray(np.where(mask_numbers(m) == 3, 254, mask_numbers(m)).astype(np.uint8)).save(m)
def bomb(d, p, m): Image.new("1", (20000, 10000)).save(m)
def mixed_clips(d, p, m): (d / "valid.txt").write_text((d / "valid.txt").read_text().rstrip("\n") + f"\n{p.name}")
def huge(d, p, m): Image.new("RGB", (7000, 6000)).save(p); Image.new("L", (7000, 6000)).save(m)


@pytest.mark.parametrize("fault, kind", [(no_mask, "no mask"), (truncated, "unreadable image"), (empty, "unreadable image"), (text, "unreadable image"),
    (truncated_mask, "unreadable mask"), (half, "sizes differ"), (unknown, "unknown values"), (smooth, "interpolated mask"), (jpeg, "JPEG mask"), (colours, "mask in colours"),
    (nothing, "only void"), (single, "one class only"), (both, "same image on both sides"), (nearly, "nearly the same image on both sides"), (lying, "turned by EXIF"),
    (film, "several frames"), (capitals, "names nearly equal"), (accents, "names nearly equal"), (orphan, "mask without image"), (alpha, "alpha"), (cmyk, "CMYK"),
    (deep, "16 bits"), (other_mode, "kinds of masks differ"), (absent, "class never trained"), (no_split, "alike, without a split"), (huge, "very large"), (misspelt, "listed, not there"), (all_held, "one side is empty"),
    (strange_numbers, "no codes"), (bomb, "unreadable mask"), (mixed_clips, "one clip on both sides")])
def test_fault_is_found(data, fault, kind):
    assert kind not in {f.kind for f in check_data(data).findings}
    p, m = pair(data)
    fault(data, p, m)
    report = check_data(data)
    found = [f for f in report.findings if f.kind == kind]
    assert len(found) == 1, report
    assert report.ok == all(kinds[f.kind][0] != "stop" for f in report.findings)
    assert kind in repr(report) and found[0].remedy in repr(report) and found[0].remedy in report._repr_html_()


def test_classes_that_validation_lacks(data):
    for m in sorted((data / "labels").iterdir()):
        if m.name.replace("_P", "") in (data / "valid.txt").read_text() or m.stem.removesuffix("_P") in (data / "valid.txt").read_text():
            a = mask_numbers(m)
            Image.fromarray(np.where(a == 8, 3, a).astype(np.uint8)).save(m)
    found = {f.kind: f for f in check_data(data).findings}
    assert "Car" in found["class never validated"].detail


def test_sound_data_and_what_is_no_data(data, tmp_path):
    assert check_data(data).ok
    for folder in (tmp_path / "nosuch", tmp_path):
        with pytest.raises(FileNotFoundError): check_data(folder)
