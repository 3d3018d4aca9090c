"""Several binary masks for one image, and thresholds other than one half"""
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from conftest import segnb
from segnb.all import SegDataLoaders, TTA, export_onnx, find_pairs, load_model, seg_learner
from segnb.core import pack_masks, unpack_masks
from segnb.dataset import pixel_counts
from segnb.overlap import OverlapDataset, OverlapMatrix, SigmoidLoss
from segnb.threshold import PRCurves


def eyes(path, n=10, size=(48, 64), missing=()):
    """Green discs under red stripes: each has a mask of its own, and they overlap"""
    for sub in ("images", "masks/disc", "masks/stripe"): (path / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        yy, xx = np.mgrid[:size[0], :size[1]]
        cy, cx = rng.integers(14, 34), rng.integers(14, 50)
        disc = (yy - cy) ** 2 + (xx - cx) ** 2 < 144
        stripe = np.abs(yy - cy + rng.integers(-6, 6)) < 3
        image = rng.integers(60, 100, (*size, 3))
        image[disc, 1] += 120
        image[stripe, 0] += 120
        Image.fromarray(image.astype(np.uint8)).save(path / f"images/{i}.png")
        for name, m in dict(disc=disc, stripe=stripe).items():
            if (name, i) not in missing: Image.fromarray(m.astype(np.uint8) * 255).save(path / f"masks/{name}/{i}.png")
    return path


OPTIONS = "--images", "images/*.png", "--masks", "masks/{class}/{stem}.png", "--codes", "disc", "stripe"


def test_from_folder_to_prediction(tmp_path):
    d = eyes(tmp_path / "eyes")
    run = segnb("check", d, *OPTIONS)
    assert run.returncode == 0 and "disc (10), stripe (10)" in run.stdout, run.stdout
    run = segnb("train", d, *OPTIONS, "--valid", .2, "--crop", 32, 32, "--bs", 4, "--epochs", 25, "--encoder", "tf_efficientnet_lite0",
                "--threshold", "--out", tmp_path / "m.safetensors")
    assert run.returncode == 0 and "average precision" in run.stdout, run.stderr
    assert float(run.stdout.rsplit("mean IoU", 1)[1].split()[0]) > .8, run.stdout
    model = load_model(tmp_path / "m.safetensors", "cpu")
    assert model.overlap and len(model.threshold) == 2
    ds = OverlapDataset([d / "images/0.png"], {c: [d / f"masks/{c}/0.png"] for c in ("disc", "stripe")})
    truth, pred = unpack_masks(ds.mask(0), 2), unpack_masks(model.predict(ds.images[0]), 2)
    assert truth.all(0).any() and pred.all(0).any()                 # pixels that have both
    assert (truth == pred).mean() > .95
    run = segnb("predict", tmp_path / "m.safetensors", d / "images", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    saved = np.stack([np.asarray(Image.open(tmp_path / f"out/0_{c}_mask.png")) for c in ("disc", "stripe")])
    assert set(np.unique(saved)) == {0, 255} and ((saved > 0) == pred).mean() > .99
    assert segnb("predict", tmp_path / "m.safetensors", d / "images", "--out", tmp_path / "out").returncode == 2


def loaders(d):
    masks = {c: sorted((d / "masks" / c).iterdir()) for c in ("disc", "stripe")}
    return SegDataLoaders.from_dataset(OverlapDataset(sorted((d / "images").iterdir()), masks), crop=32, bs=4, device="cpu")


def test_an_image_without_a_mask_of_one_class(tmp_path):
    d = eyes(tmp_path, missing=[("stripe", 3), ("stripe", 4)])
    run = segnb("check", d, *OPTIONS)
    assert run.returncode == 0 and "stripe (8); where it has none, there is nothing of it" in run.stdout, run.stdout
    (d / "masks/disc/3.png").unlink()
    run = segnb("check", d, *OPTIONS)
    assert run.returncode == 1 and "no mask" in run.stdout


def test_what_is_wrong_is_named(tmp_path):
    d = eyes(tmp_path)
    Image.fromarray(np.arange(48 * 64, dtype=np.uint8).reshape(48, 64)).save(d / "masks/disc/2.png")
    run = segnb("check", d, *OPTIONS)
    assert run.returncode == 1 and "2.png holds more than 0 and one other value" in run.stdout, run.stdout
    with pytest.raises(ValueError, match="2.png: values"): loaders(d)
    Image.new("L", (20, 20)).save(d / "masks/disc/2.png")
    assert segnb("check", d, *OPTIONS).returncode == 1
    with pytest.raises(ValueError, match="2.png: its masks are of several sizes"): loaders(d)
    run = segnb("check", d, "--images", "images/*.png", "--masks", "masks/{class}/{stem}.png")
    assert run.returncode == 2 and "name the classes" in run.stderr
    with pytest.raises(ValueError, match="1 to 7"): OverlapDataset([], {str(k): [] for k in range(8)})


def test_counts_and_weights_are_of_classes(tmp_path):
    dls = loaders(eyes(tmp_path))
    ds = dls.train_ds
    for i in range(len(ds)): assert ds.counts[i].tolist() == unpack_masks(ds[i][1], 2).sum((1, 2)).tolist()
    with pytest.raises(ValueError, match="focus="): SegDataLoaders.from_dataset(ds.ds, crop=32, focus="disc")
    assert SegDataLoaders.from_dataset(ds.ds, crop=32, balance=True, device="cpu").train.one_batch()[1].max() <= 3


@pytest.fixture(scope="module")
def learner(tmp_path_factory):
    dls = loaders(eyes(tmp_path_factory.mktemp("eyes")))
    learn = seg_learner(dls, "tf_efficientnet_lite0", precision="fp32")
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(8, 1e-2)
    return learn


def test_scores_are_those_of_each_class_by_itself(learner):
    m = learner.seg_model()
    p, t = zip(*((m.probs(x), unpack_masks(y.as_subclass(torch.Tensor), 2)) for x, y in learner.dls.valid))
    p, t = torch.cat(p).transpose(0, 1).flatten(1).numpy(), torch.cat(t).transpose(0, 1).flatten(1).numpy()
    assert np.allclose(learner.confusion().dice, [f1_score(a, b > .5) for a, b in zip(t, p)])
    assert np.allclose(learner.pr_curves().average_precision, [average_precision_score(a, b) for a, b in zip(t, p)], atol=2e-3)
    values = learner.validate()
    assert abs(values[2] - learner.confusion().mean_iou) < 1e-6


def test_void_counts_nowhere():
    y = torch.tensor([[[0, 1], [3, 255]]], dtype=torch.uint8)
    logits = torch.randn(1, 2, 2, 2)
    other = logits.clone()
    other[..., 1, 1] += 50
    cm = OverlapMatrix(2)
    cm.add(logits, y)
    assert cm.matrix.sum() == 2 * 3 and (OverlapMatrix(2).add(other, y).matrix == cm.matrix).all()
    assert SigmoidLoss()(logits, y) == SigmoidLoss()(other, y)
    c = PRCurves(["a", "b"])
    c.add(logits.sigmoid(), unpack_masks(y, 2), y != 255)
    assert c.counts.sum() == 2 * 3


def test_views_and_files_keep_it(learner, tmp_path):
    """Test-time views, ONNX and checkpoints know that classes overlap"""
    fn = learner.dls.valid_ds.ds.images[0]
    learner.threshold = [.4, .6]
    m = learner.seg_model()
    p = m.predict_probs(fn)
    assert (m.predict(fn) == pack_masks(p >= torch.tensor([.4, .6])[:, None, None]).numpy()).all()
    t = TTA(m, "flip").seg_model()
    x = m.image(fn)
    flipped = m.predict_probs(np.ascontiguousarray(np.asarray(x)[:, ::-1])).flip(-1)
    assert torch.allclose(t.predict_probs(fn), (p + flipped) / 2, atol=1e-3) and t.threshold == [.4, .6]
    again = load_model(export_onnx(m, tmp_path / "m.onnx"))
    assert again.overlap and again.threshold == [.4, .6] and torch.allclose(again.predict_probs(fn), p, atol=.02)
    learner.threshold = None


def test_a_threshold_is_for_two_classes(small_set, tmp_path):
    learn = seg_learner(SegDataLoaders.from_path(small_set, crop=32, bs=4, device="cpu"))
    with pytest.raises(ValueError, match="here are 11 classes"): learn.pr_curves()
    learn.threshold = .3
    with pytest.raises(ValueError, match="one for two classes"): learn.seg_model()
    run = segnb("train", small_set, "--threshold", "--epochs", 1, "--crop", 32, 32, "--out", tmp_path / "m.safetensors")
    assert run.returncode == 2 and "a threshold is for two classes" in run.stderr


def test_packing_for_arrays_and_tensors():
    m = torch.rand(2, 7, 5, 6) < .5
    for o in (m, m.numpy()): assert (unpack_masks(pack_masks(o), 7) == o).all() and type(pack_masks(o)) is type(o)
    assert not unpack_masks(np.full((2, 3), 255, dtype=np.uint8), 7).any()


def test_wrappers_score_as_the_model_does(learner):
    one = TTA(learner, "none")
    assert np.allclose(learner.confusion(model=one).dice, learner.confusion().dice, atol=.01)
    assert np.allclose(list(learner.validate(model=one)), list(learner.validate()), atol=.02)
    x = learner.dls.valid.one_batch()[0]
    assert torch.allclose(TTA(learner, "none", mean="logit")(x), one(x), atol=1e-3)


def test_what_takes_one_class_a_pixel_says_so(learner):
    for f in (learner.calibrate, learner.results):
        with pytest.raises(ValueError, match="classes of this model overlap"): f()


def test_images_with_nothing_are_drawn_too(tmp_path):
    d = eyes(tmp_path, n=6)
    for c in ("disc", "stripe"): Image.new("L", (64, 48)).save(d / f"masks/{c}/0.png")
    Image.new("L", (64, 48)).save(d / "masks/stripe/1.png")
    masks = {c: sorted((d / "masks" / c).iterdir()) for c in ("disc", "stripe")}
    ds = OverlapDataset(sorted((d / "images").iterdir()), masks)
    weights = lambda balance: SegDataLoaders.from_dataset(ds, lambda o: ([0, 1, 2, 3], [4, 5]), 32, 2, balance=balance,
                                                          device="cpu").train.weights
    assert np.allclose(weights(.9), [.1, .3, .3, .3]) and 0 < weights(True)[0] < weights(True)[1:].min()
    assert pixel_counts(ds, 2).tolist() == [ds.count(ds.mask(i)).tolist() for i in range(6)]


def test_the_threshold_of_a_class_that_is_not_there():
    c = PRCurves(["a", "b"])
    truth = torch.tensor([[[[1, 0]], [[0, 0]]]]).bool()
    c.add(torch.tensor([[[[.7, .2]], [[.3, .1]]]]), truth, torch.ones(1, 1, 2).bool())
    assert c.best[1] == .5 and .2 < c.best[0] <= .7 and c.table().threshold["b"] == .5
