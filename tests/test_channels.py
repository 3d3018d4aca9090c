"""Images that are not 8-bit RGB: bands of satellites, 16 bits of microscopes, channels of scanners"""
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from conftest import segnb
from segnb.all import SegDataLoaders, find_pairs, load_model, seg_learner
from segnb.draw import as_image
from segnb.encoders import encoder


def scene(channels, dtype, high, size=(48, 64)):
    """An image whose last channel alone tells what is where, and its mask"""
    rng = np.random.default_rng()
    mask = np.zeros(size, dtype=np.uint8)
    top, left = rng.integers(0, 24, 2)
    mask[top:top + 20, left:left + 24] = 1
    image = rng.integers(high // 4, high // 2, (*size, channels))
    image[..., -1] = np.where(mask, high * .9, high * .1) + rng.integers(0, high // 20, size)
    return image.astype(dtype), mask


def folder(path, suffix, channels, dtype, high, n=10):
    for sub in ("images", "masks"): (path / sub).mkdir()
    for i in range(n):
        image, mask = scene(channels, dtype, high)
        fn = path / f"images/{i}{suffix}"
        if suffix == ".npy": np.save(fn, image)
        elif suffix == ".tif": tifffile.imwrite(fn, image.transpose(2, 0, 1) if channels > 4 else image,
                                                photometric="minisblack", planarconfig="separate" if channels > 4 else "contig")
        else: Image.fromarray(image if channels == 3 else image[..., 0]).save(fn)
        Image.fromarray(mask).save(path / f"masks/{i}.png")
    return path


KINDS = {"four bands of 8 bits": (".tif", 4, np.uint8, 255), "six bands of 16 bits": (".tif", 6, np.uint16, 10000),
         "one channel of 12 bits": (".png", 1, np.uint16, 4095), "two channels of floats": (".npy", 2, np.float32, 500)}


@pytest.mark.parametrize("kind", KINDS)
def test_from_folder_to_prediction(kind, tmp_path):
    """Check, train and predict from the command line alone; what is predicted is found, which the first three channels
    of the many-banded sets do not show"""
    suffix, channels, dtype, high = KINDS[kind]
    d = tmp_path / "set"
    d.mkdir()
    folder(d, suffix, channels, dtype, high)
    options = ["--channels", channels, *(["--range", 0, high] if dtype != np.uint8 else []), "--valid", .2]
    run = segnb("check", d, *options)
    assert run.returncode == 0, run.stdout
    run = segnb("train", d, *options, "--crop", 32, 32, "--bs", 4, "--epochs", 25, "--encoder", "tf_efficientnet_lite0",
                "--out", tmp_path / "m.safetensors")
    assert run.returncode == 0, run.stderr
    iou = float(run.stdout.rsplit("mean IoU", 1)[1].split()[0])
    assert iou > .85, run.stdout
    image, mask = scene(channels, dtype, high)
    model = load_model(tmp_path / "m.safetensors")
    assert model.model.config["in_chans"] == channels
    assert (model.predict(image) == mask).mean() > .9
    run = segnb("predict", tmp_path / "m.safetensors", d / "images", "--out", tmp_path / "out")
    assert run.returncode == 0 and len(list((tmp_path / "out").glob("*_overlay.jpg"))) == 10, run.stderr


def loaders(path, **kwargs):
    ds, _ = find_pairs(path, **kwargs)
    return SegDataLoaders.from_dataset(ds, crop=32, bs=2, device="cpu")


def test_sixteen_bits_are_not_rounded_to_eight(tmp_path):
    d = folder(tmp_path, ".png", 1, np.uint16, 60000)
    x, _ = find_pairs(d, channels=1)[0][0]
    raw = np.asarray(Image.open(d / "images/0.png"))
    assert x.dtype == torch.float32 and x.shape == (1, 48, 64)
    assert np.abs(x[0].numpy() * 65535 - raw).max() < .01
    frames = loaders(d, channels=1).train_ds
    raw = np.asarray(Image.open(frames.ds.images[0]))
    assert np.abs(frames[0][0][0].float().numpy() * 65535 - raw).max() < 65535 / 2**11      # half precision
    assert len(np.unique(frames[0][0])) > 300                       # more than bytes could hold


def test_three_channels_are_what_rgb_is(tmp_path):
    """`channels=3` on ordinary images changes nothing"""
    d = folder(tmp_path, ".png", 3, np.uint8, 255)
    plain, own = find_pairs(d, size=24)[0], find_pairs(d, size=24, channels=3)[0]
    assert all((a[0] == b[0]).all() and (a[1] == b[1]).all() for a, b in zip(plain, own))


def test_chosen_channels_and_the_three_that_are_shown(tmp_path):
    d = folder(tmp_path, ".tif", 6, np.uint16, 10000)
    ds = find_pairs(d, channels=[5, 0], range=(0, 10000))[0]
    whole = find_pairs(d, channels=6, range=(0, 10000))[0]
    assert (ds[3][0] == whole[3][0][[5, 0]]).all()
    dls = loaders(d, channels=6, range=(0, 10000))
    b = dls.valid.one_batch()
    dls.valid.show_batch(b, rgb=(5, 5, 5), max_n=1)
    assert (as_image(b[0][0], (5, 0, 1))[..., 0] == (b[0][0, 5] * 255 + .5).byte().numpy()).all()


def test_pretrained_weights_are_kept():
    """All weights but the first convolution's, which repeats those for red, green and blue, scaled to the same sum"""
    three, five = encoder("tf_efficientnet_lite0", 3), encoder("tf_efficientnet_lite0", 5)
    same = {k: torch.equal(v, five.state_dict()[k]) for k, v in three.state_dict().items()}
    assert five.pretrained and [k for k, ok in same.items() if not ok] == ["conv_stem.weight"]
    assert torch.allclose(five.conv_stem.weight * 5 / 3, three.conv_stem.weight[:, [0, 1, 2, 0, 1]], atol=1e-6)


def test_training_and_prediction_read_alike(tmp_path):
    """What the loader gives the network is what a model gives it for the same file"""
    d = folder(tmp_path, ".tif", 6, np.uint16, 10000)
    dls = loaders(d, channels=[5, 1, 2, 3], range=(100, 9000))
    learn = seg_learner(dls, "tf_efficientnet_lite0", precision="fp32")
    model, ds = learn.seg_model(), dls.valid_ds.ds
    x, _ = ds[0]
    assert torch.allclose(torch.from_numpy(model.image(ds.images[0])).permute(2, 0, 1), x)
    assert model.model.config["in_chans"] == 4
    direct = model.probs(x[None])[0]
    assert torch.allclose(model.predict_probs(ds.images[0]), direct.cpu(), atol=1e-5)
    again = load_model(model.save(tmp_path / "m.safetensors"), "cpu")
    again.half = False
    assert again.channels == [5, 1, 2, 3] and (again.predict(ds.images[0]) == model.predict(ds.images[0])).all()
    done, failed = again.predict_folder(ds.images[:1], tmp_path / "out")
    assert not failed and len(done) == 1 and (np.asarray(Image.open(done[0])) == model.predict(ds.images[0])).all()


def test_what_is_wrong_is_named(tmp_path):
    d = folder(tmp_path, ".npy", 2, np.float32, 500)
    with pytest.raises(ValueError, match=r"0\.npy: 2 channels, not 4"): find_pairs(d, channels=4)[0][0]
    with pytest.raises(ValueError, match=r"0\.npy: holds floats.*range="): find_pairs(d, channels=2)[0][0]
    with pytest.raises(ValueError, match=r"no channels \[2\]"): find_pairs(d, channels=[0, 2])[0][0]
    np.save(d / "images/3.npy", scene(2, np.uint8, 255)[0])
    with pytest.raises(ValueError, match="all images need the same"): loaders(d, channels=2, range=(0, 500))
    run = segnb("check", d, "--channels", 2, "--range", 0, 500)
    assert run.returncode == 0


def test_a_pickle_in_an_array_file_is_not_run(tmp_path):
    d = folder(tmp_path, ".npy", 2, np.float32, 500)
    np.save(d / "images/3.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="3.npy"): find_pairs(d, channels=2)[0][3]


def test_twelve_bits_without_a_range_are_warned_of(tmp_path):
    d = folder(tmp_path, ".png", 1, np.uint16, 4095)
    with pytest.warns(UserWarning, match=r"range=\(0, 4095\)"): loaders(d, channels=1)
    run = segnb("check", d, "--channels", 1)
    assert "--range 0 4095" in run.stdout
