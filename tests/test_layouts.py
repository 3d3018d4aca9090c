"""Raw folders as people have them, made small: one `segnb check` and one `segnb train` each, from files to scores."""
import json

import numpy as np
import pytest
from PIL import Image

from conftest import segnb
from segnb.pairs import FoundPairs
from segnb.all import SegDataLoaders, find_pairs, load_model, seg_learner

rng = np.random.default_rng(0)


def scene(h=48, w=64, n=3):
    "An image of blocks and the class index of each pixel"
    mask = np.kron(rng.integers(0, n, (h//16, w//16)), np.ones((16, 16))).astype(np.uint8)
    image = np.array([[30, 60, 200], [200, 60, 30], [60, 200, 60]], dtype=np.uint8)[mask % 3] + rng.integers(0, 40, (h, w, 3), dtype=np.uint8)
    return image, mask


def save(a, fn, palette=None):
    fn.parent.mkdir(parents=True, exist_ok=True)
    im = Image.fromarray(a)
    if palette is not None: im.putpalette([v for c in palette for v in c])
    im.save(fn)


def streets_as_cityscapes(path):
    "Void is 255, the sides are folders, the names have suffixes, and the mask in colours lies beside the right one"
    for side, n in (("train", 6), ("val", 2)):
        for i in range(n):
            image, mask = scene()
            mask[:4] = 255
            save(image, path / f"leftImg8bit/{side}/ulm/ulm_{i}_leftImg8bit.png")
            save(mask, path / f"gtFine/{side}/ulm/ulm_{i}_gtFine_labelTrainIds.png")
            save(image, path / f"gtFine/{side}/ulm/ulm_{i}_gtFine_color.png")
    (path / "codes.txt").write_text("road\nsidewalk\nbuilding")
    return (), ["road", "sidewalk", "building"], (6, 2)


def retina(path):
    "TIFF images, GIF masks with palettes, 0 and 255, a field of view that is a mask as well"
    inside = (np.hypot(*np.mgrid[-24:24, -32:32]) < 22).astype(np.uint8) * 255
    for i in range(21, 29):
        image, mask = scene(n=2)
        save(image, path / f"images/{i}_training.tif")
        save(mask*255, path / f"1st_manual/{i}_manual1.gif")
        save(inside, path / f"mask/{i}_training_mask.gif")
    return (("--images", "images/*_training.tif", "--masks", "1st_manual/*_manual1.gif", "--roi", "mask/*_training_mask.gif", "--codes", "background",
             "vessel", "--valid", "0.25"), ["background", "vessel"], (6, 2))


COLORS = dict(building=(60, 16, 152), land=(132, 41, 246), road=(110, 193, 228), unlabeled=(155, 155, 155))


def aerial(path):
    "Tiles in folders with a space; some masks RGB, some with palettes in an order of their own; sizes differ"
    table = np.array(list(COLORS.values()), dtype=np.uint8)
    for tile in (1, 2, 3):
        for part in (1, 2, 3):
            image, mask = scene(48 if part < 3 else 64, 64)
            mask[:, :4] = 3
            save(image, path / f"Tile {tile}/images/image_part_{part:03}.jpg")
            where = path / f"Tile {tile}/masks/image_part_{part:03}.png"
            if part < 3: save(table[mask], where)
            else: save(np.array([3, 2, 1, 0], dtype=np.uint8)[mask], where, table[::-1].tolist())
    return (("--images", "Tile */images/*.jpg", "--masks", "Tile */masks/{stem}.png", "--colors", json.dumps(COLORS), "--valid", "Tile 3"),
            ["building", "land", "road"], (6, 3))


def membranes(path):
    "Grey slices, masks of 0 and 255, sides outside"
    for side, n in (("train", 6), ("valid", 2)):
        for i in range(n):
            image, mask = scene(n=2)
            save(image[..., 0], path / f"{side}/images/slice{side}{i}.png")
            save(mask*255, path / f"{side}/masks/slice{side}{i}.png")
    return ("--codes", "cell", "membrane"), ["cell", "membrane"], (6, 2)


@pytest.mark.parametrize("kind", [streets_as_cityscapes, retina, aerial, membranes])
def test_from_raw_folder_to_scores(kind, tmp_path):
    args, classes, (n_train, n_valid) = kind(tmp_path / "raw")
    check = segnb("check", tmp_path / "raw", *args)
    assert check.returncode == 0, check.stdout + check.stderr
    said = check.stdout.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["images", "masks", "validation"]
    assert said[0].split()[1] == str(n_train+n_valid) and all(c in said[1] for c in classes) and said[2].split()[1] == str(n_valid)
    size = ("--size", 48, 64, "--resize", "pad") if kind is aerial else ("--crop", 48, 48)
    run = segnb("train", tmp_path / "raw", *args, *size, "--epochs", 12, "--bs", 3, "--encoder", "tf_efficientnet_lite0", "--out", tmp_path / "m.safetensors")
    assert run.returncode == 0, run.stderr
    assert f"{n_train} training and {n_valid} validation images, {len(classes)} classes" in run.stdout
    accuracy = float(run.stdout.strip().splitlines()[-1].split()[2])
    model = load_model(tmp_path / "m.safetensors")
    assert model.classes == classes and accuracy > .6
    files = [f for f in (tmp_path / "raw").rglob("*") if f.suffix in (".png", ".tif", ".jpg") and "mask" not in str(f) and "gtFine" not in str(f)]
    assert model.predict(files[0]).shape == np.asarray(Image.open(files[0])).shape[:2]


def test_pascal_voc(tmp_path):
    "Most of its images are for other tasks and have no mask; lists say which are for training, validation and test"
    names = [f"2007_{i:06}" for i in range(9)]
    for i, name in enumerate(names):
        image, mask = scene()
        save(image, tmp_path / f"JPEGImages/{name}.jpg")
        mask[:2] = 255
        if i < 7: save(mask, tmp_path / f"SegmentationClass/{name}.png", np.arange(768).reshape(256, 3) % 256)
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    sides = dict(train=names[:4], val=names[4:6], trainval=names[:6], test=names[6:8])
    for side, some in sides.items(): (lists / f"{side}.txt").write_text("\n".join(some) + "\n")
    (lists / "._val.txt").write_bytes(b"\x00\x05\x16\x07\xff\xfe\xfd")                 # macOS leaves such files
    ds, split = find_pairs(tmp_path, codes=["background", "cat", "dog"])
    assert [len(o) for o in split(ds.images)] == [4, 2] and (ds[0][1][:2] == 255).all()
    patterns = dict(images="JPEGImages/*.jpg", masks="SegmentationClass/{stem}.png")
    assert len(FoundPairs(tmp_path, **patterns)) == 7                           # by patterns everything counts
    (tmp_path / f"SegmentationClass/{names[1]}.png").unlink()               # one that is listed must have its mask
    with pytest.raises(ValueError, match="1 of 6 images have no mask.*2007_000001"): find_pairs(tmp_path)


def test_what_is_outside_the_region_of_interest_is_void(tmp_path):
    retina(tmp_path)
    ds, split = find_pairs(tmp_path, codes=["background", "vessel"], images="images/*_training.tif", masks="1st_manual/*_manual1.gif", roi="mask/*_training_mask.gif", valid=.25)
    mask, inside = ds[0][1].numpy(), np.asarray(Image.open(tmp_path / "mask/21_training_mask.gif").convert("L")) > 0
    assert (mask[~inside] == 255).all() and set(np.unique(mask[inside])) == {0, 1}
    assert [len(o) for o in split(ds.images)] == [6, 2] and ds.subset([3])[0][1].equal(ds[3][1])
    (tmp_path / "mask/23_training_mask.gif").unlink()
    with pytest.raises(FileNotFoundError, match="23_training_mask.gif: no region of interest there"):
        find_pairs(tmp_path, images="images/*_training.tif", masks="1st_manual/*_manual1.gif", roi="mask/*_training_mask.gif")


def test_a_field_of_view_is_not_taken_for_the_labels(tmp_path):
    retina(tmp_path)
    with pytest.raises(ValueError, match=r"may be in mask/ \(21_training_mask.gif\) or in 1st_manual/.*--masks.*--roi"): find_pairs(tmp_path)


def test_all_labels_of_cityscapes(tmp_path):
    for i, ids in enumerate(([7, 8], [11, 26], [3, 33])):
        save(scene()[0], tmp_path / f"leftImg8bit/train/x/x_{i}_leftImg8bit.png")
        save(np.array(ids, dtype=np.uint8)[scene(n=2)[1]], tmp_path / f"gtFine/train/x/x_{i}_gtFine_labelIds.png")
    ds, _ = find_pairs(tmp_path)
    assert ds.classes[:3] == ["road", "sidewalk", "building"] and len(ds.classes) == 19
    assert set(ds[0][1].unique().tolist()) == {0, 1} and set(ds[2][1].unique().tolist()) == {18, 255}


@pytest.mark.parametrize("how", ["squish", "crop", "pad"])
def test_resize_methods_are_fastais(tmp_path, how):
    from fastai.vision.augment import Resize
    from fastai.vision.core import PILImage, PILMask
    image, mask = scene(48, 96)
    save(image, tmp_path / "images/a.png")
    save(mask, tmp_path / "masks/a.png")
    ds, _ = find_pairs(tmp_path, codes=["a", "b", "c"], size=(48, 48), resize=how)
    resize = Resize((48, 48), method=how, pad_mode="zeros")
    x, y = np.asarray(resize(PILImage.create(tmp_path / "images/a.png"), split_idx=1)), np.asarray(resize(PILMask.create(tmp_path / "masks/a.png"), split_idx=1))
    ours, mine = ds[0][0].permute(1, 2, 0).numpy(), ds[0][1].numpy()
    if how == "pad":                                             # fastai pads masks with class 0, which is a class; here it is void
        assert (mine[:12] == 255).all() and (mine[36:] == 255).all()
        x, y, ours, mine = x[12:36], y[12:36], ours[12:36], mine[12:36]
    assert (mine == y).mean() > .97 and np.abs(ours.astype(int)-x).mean() < 6
    with pytest.raises(ValueError, match="choose 'squish', 'crop' or 'pad'"): find_pairs(tmp_path, resize="stretch")


@pytest.mark.parametrize("how", ["squish", "crop", "pad"])
def test_predictions_undo_the_resize(tmp_path, how):
    "Images of two sizes: the model sees each as training did, and gives the class map at the image's own size"
    for i in range(6):
        image, mask = scene(*((48, 96) if i % 2 else (96, 48)))
        save(image, tmp_path / f"images/{i}.png")
        save(mask, tmp_path / f"masks/{i}.png")
    dls = SegDataLoaders.from_path(tmp_path, codes=["a", "b", "c"], size=(48, 48), resize=how, crop=(32, 32), bs=2, device="cpu")
    model = seg_learner(dls).seg_model()
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors", device="cpu")
    inner = dict(squish=(48, 48), crop=(48, 96), pad=(24, 48))[how]
    assert again.resize == how and again.inner_size((48, 96)) == inner and again.inner_size((480, 960)) == inner
    assert again.predict(tmp_path / "images/1.png").shape == (48, 96)


def test_colours_from_json(tmp_path):
    from segnb.recipe import as_colors
    assert as_colors('[[0,0,0],[255,0,1]]') == ([(0, 0, 0), (255, 0, 1)], None)
    assert as_colors('{"a": "#ff0001", "b": [1,2,3]}') == ([(255, 0, 1), (1, 2, 3)], ["a", "b"])
    (tmp_path / "c.json").write_text('{"classes": [{"title": "a", "color": "#000001"}]}')
    assert as_colors(str(tmp_path / "c.json")) == ([(0, 0, 1)], ["a"])
    many = {f"class {k}": [k, k, k] for k in range(200)}            # too long for the name of a file
    assert len(as_colors(json.dumps(many))[0]) == 200
    for bad in ('red', '[[0,0]]', '{"a": 3}', '[[0,0,300]]'):
        with pytest.raises(ValueError, match="is not a list of"): as_colors(bad)


def test_a_mask_in_colours_names_them(tmp_path):
    aerial(tmp_path)
    run = segnb("check", tmp_path, "--images", "Tile */images/*.jpg", "--masks", "Tile */masks/{stem}.png")
    assert run.returncode == 1 and "(60, 16, 152)" in run.stdout and "mask in colours" in run.stdout


def numbered(folder, numbers):
    """Four pairs whose masks hold these numbers"""
    for i in range(4):
        image, mask = scene()
        save(image, folder / f"images/{i}.png")
        save(np.array(numbers, dtype=np.uint8)[mask], folder / f"masks/{i}.png")


def test_values_and_void(tmp_path):
    numbered(tmp_path, [10, 20, 99])
    args = "--codes", "a", "b", "--values", 10, 20, "--void", 99
    run = segnb("check", tmp_path, *args)
    assert run.returncode == 0 and "10 a, 20 b; void 99, 255" in run.stdout, run.stdout


def test_patterns_that_find_no_pair_say_where_they_looked(tmp_path):
    retina(tmp_path)
    run = segnb("check", tmp_path, "--images", "images/*.tif", "--masks", "1st_manual/*.gif")
    assert run.returncode == 2 and "none of 8 images has a mask" in run.stderr and "1st_manual/21_training.gif" in run.stderr


def test_spaced_numbers_are_as_many_classes(tmp_path):
    numbered(tmp_path, [10, 20, 30])
    ds, _ = find_pairs(tmp_path)
    assert ds.classes == ["class 10", "class 20", "class 30"] and set(ds[0][1].unique().tolist()) <= {0, 1, 2}
    assert segnb("check", tmp_path).returncode == 0


def test_a_class_that_one_mask_has_is_guessed(tmp_path):
    """The guess looks at every mask, as training does"""
    for i in range(40):
        image, mask = scene()
        save(image, tmp_path / f"images/{i:02}.png")
        save(np.array([0, 1, 3 if i == 7 else 2], dtype=np.uint8)[mask], tmp_path / f"masks/{i:02}.png")
    assert len(find_pairs(tmp_path)[0].classes) == 4
    run = segnb("check", tmp_path)
    assert "3 class 3" in run.stdout and "unknown values" not in run.stdout, run.stdout


def test_check_says_which_colours_the_table_lacks(tmp_path):
    aerial(tmp_path)
    table = json.dumps({"building": COLORS["building"], "land": COLORS["land"], "pool": [1, 2, 3]})
    run = segnb("check", tmp_path, "--images", "Tile */images/*.jpg", "--masks", "Tile */masks/{stem}.png", "--colors", table)
    assert run.returncode == 1 and "(110, 193, 228)" in run.stdout and "of the table, not in these masks: (1, 2, 3)" in run.stdout
    assert "Tile 1/masks/image_part_001.png" in run.stdout
