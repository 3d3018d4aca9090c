"Images that are brought to the same light: in training, in the model file and wherever it predicts"
import numpy as np
import pytest
import torch
from PIL import Image

from safetensors.torch import load_file
from segnb.all import Codes, EncoderUNet, Ensemble, SegDataLoaders, SegLearner, UNet, find_pairs, load_model
from segnb.core import standardized_image
from segnb.frames import frames_file
from segnb.model_file import SegModel, at_size
from conftest import segnb


@pytest.fixture(scope="module")
def learn(small_set):
    torch.manual_seed(0)
    dls = SegDataLoaders.from_path(small_set, size=(48, 64), crop=32, bs=4, device="cpu", standardize=True)
    return SegLearner(dls, UNet(3, 11, width=4, depth=2, pad=True))


def dusk(fn): return Image.open(fn).convert("RGB").point([int(v * f + 5) for f in (.5, .55, .6) for v in range(256)])


def far(model, fn):
    "How far the probabilities of an image and of the same at dusk are apart"
    return (model.predict_probs(fn) - model.predict_probs(dusk(fn))).abs().max().item()


def test_the_model_file_keeps_it(learn, tmp_path):
    from segnb.export import export_onnx
    from segnb.model_file import load_onnx
    fn, plain = learn.dls.valid_ds.ds.images[0], SegModel(learn.model, learn.codes, size=(48, 64), half=False)
    model = load_model(learn.save_model(tmp_path / "m.safetensors"), "cpu")
    model.half = False
    assert model.standardize and far(model, fn) < .2 * far(plain, fn)
    onnx = load_onnx(export_onnx(model, tmp_path / "m.onnx"), half=False)
    assert onnx.standardize and (onnx.predict_probs(fn) - model.predict_probs(fn)).abs().max() < 1e-3


def test_predicting_sees_what_training_saw(learn):
    valid, model = learn.dls.valid_ds, learn.seg_model()
    seen = at_size(model.probs(valid[1][0][None] / 255), (96, 128))[0]
    assert (model.predict_probs(valid.ds.images[1]) - seen).abs().max() < 1e-4
    assert (learn.dls.test_dl(valid.ds.images[1:2]).one_batch()[0] - valid[1][0][None] / 255).abs().max() < 1e-6


def test_other_frames_are_other_files(small_set):
    ds, _ = find_pairs(small_set)
    assert frames_file(ds) != frames_file(ds.standardized())
    assert ds.standardized().standardize and not ds.standardize
    assert (ds.standardized().pair(0)[0] == np.asarray(standardized_image(ds.image(0)))).all()


def test_bands_of_any_depth():
    a = np.random.default_rng(0).random((20, 30, 5), dtype=np.float32) * np.array([.1, .2, .3, .4, .5], np.float32)
    out = standardized_image(a)
    assert out.dtype == np.float32 and np.allclose(out.mean((0, 1)), .45, atol=.02) and out.min() >= 0 and out.max() <= 1
    one_colour = Image.new("RGB", (4, 5), (30, 30, 30))
    for one in (one_colour, np.array(one_colour)): assert set(np.unique(standardized_image(one))) == {115}     # .45 of 255
    many = np.zeros((6000, 6000, 1), np.float32) + np.float32(.8)                # whose sum float32 cannot hold
    assert abs(standardized_image(many) - .45).max() < .01


def test_frames_in_other_light_than_the_models_are_refused(learn, small_set):
    from segnb.interpret import results
    plain = SegDataLoaders.from_path(small_set, size=(48, 64), crop=32, bs=4, device="cpu").valid_ds
    with pytest.raises(ValueError, match="trained on standardized images.*standardize=True"): results(learn, plain)
    assert len(results(learn, learn.dls.valid_ds).losses) == len(plain)


def test_fine_tuning_leaves_what_was_frozen(learn, small_set):
    from segnb.improve import fine_tune
    net = EncoderUNet(11, "tf_efficientnet_lite0").freeze_stages(5)
    before = {k: v.clone() for k, v in net.encoder.state_dict().items()}
    net.freeze_stages(0)                                                          # as from a file
    frames = learn.dls.valid_ds
    new = fine_tune(SegModel(net, learn.codes, info=dict(frozen=5), **learn.dls.valid_ds.facts), frames, learn.dls.train_ds, epochs=1, crop=32)
    assert all((new.model.encoder.state_dict()[k] == v).all() for k, v in before.items()) and new.standardize


def test_members_that_need_other_light_are_refused():
    net, codes = UNet(3, 2, width=4, depth=2, pad=True), Codes(["a", "b"])
    with pytest.raises(ValueError, match="trained on standardized images"):
        Ensemble(SegModel(net, codes, standardize=True), SegModel(net, codes))


def test_the_command(small_set, tmp_path):
    out = tmp_path / "m.safetensors"
    run = segnb("train", small_set, "--epochs", "1", "--crop", "32", "32", "--standardize", "--frozen", 5, "--out", out,
                "--encoder", "tf_efficientnet_lite0")
    assert run.returncode == 0, run.stderr
    assert load_model(out, "cpu").standardize
    trained, imagenet = load_file(out), EncoderUNet(11, "tf_efficientnet_lite0").state_dict()
    assert all((trained[k] == v).all() for k, v in imagenet.items() if k.startswith("encoder."))
    assert not (trained["head.weight"] == imagenet["head.weight"]).all()


def test_volumes_have_a_window_instead(tmp_path):
    from segnb.chests import chests
    run = segnb("train", chests(tmp_path / "c", n=5, shape=(8, 32, 32)), "--standardize")
    assert run.returncode == 2 and "--range is their window" in run.stderr
