"""What a user of fastai does by habit works, or says in one sentence what to use."""
import warnings

import numpy as np
import pytest
import torch
import fastai.vision.all as fv

from segnb.all import SegDataLoaders, seg_learner


@pytest.fixture(scope="module")
def path(small_set): return small_set


def loaders(path, **kwargs): return SegDataLoaders.from_path(path, crop=(64, 64), bs=4, device="cpu", **kwargs)


def quiet(learn, f):
    with learn.no_bar(), learn.no_logging(): return f()


@pytest.fixture(scope="module")
def learn(path):
    learn = seg_learner(loaders(path))
    quiet(learn, lambda: learn.fit_one_cycle(1, 1e-3))
    return learn


@pytest.fixture(scope="module")
def image(path): return sorted((path / "images").iterdir())[0]


def test_predict(learn, image):
    mask, same, probs = learn.predict(image)
    assert isinstance(mask, fv.TensorMask) and torch.equal(mask, same) and probs.shape == (11, 96, 128)


def test_export_and_load_learner(learn, image, tmp_path):
    learn.export(tmp_path / "l.pkl")
    assert len(learn.dls.train_ds) > 0                                  # the learner itself is as it was
    again = fv.load_learner(tmp_path / "l.pkl")
    assert torch.equal(again.predict(image)[0], learn.predict(image)[0]) and again.dls.vocab == learn.dls.vocab
    dl = again.dls.test_dl([image])
    assert again.get_preds(dl=dl)[0].shape == (1, 11, 96, 128)


def test_what_loaders_know(learn, capsys):
    assert learn.dls.c == 11 and len(learn.dls.vocab) == 11
    learn.dls.summary()
    said = capsys.readouterr().out
    assert "training: 16 images of 96x128, 4 batches of 4" in said and "11 classes: Sky" in said


def test_figures(learn):
    fig = learn.dls.show_batch(figsize=(8, 6), nrows=2, max_n=4)
    assert tuple(fig.get_size_inches()) == (8, 6) and len([ax for ax in fig.axes if ax.images]) == 4 and fig.axes[0].get_subplotspec().get_geometry()[:2] == (2, 2)
    assert len([ax for ax in learn.dls.show_batch(nrows=1, ncols=2).axes if ax.images]) == 2
    fig = learn.show_results(figsize=(9, 5), nrows=2)
    assert tuple(fig.get_size_inches()) == (9, 5) and len([ax for ax in fig.axes if ax.images]) == 8


def test_interpretation(learn):
    interp = fv.SegmentationInterpretation.from_learner(learn)
    losses, at = interp.top_losses(3)
    assert losses.shape == (3,) and len(set(at.tolist())) == 3
    with pytest.raises(AttributeError, match=r"learn.results\(\): plot_worst, plot_confusion_matrix"): interp.plot_top_losses(2)
    with pytest.raises(AttributeError, match=r"learn.results\(\)"): fv.ClassificationInterpretation.from_learner(learn)
    results = learn.results()
    assert len(results.plot_confusion_matrix().axes[0].get_xticklabels()) == 11
    assert results.plot_worst(n=2).axes


def test_unet_learner_without_a_loss(path):
    learn = fv.unet_learner(loaders(path), fv.resnet18, pretrained=False)
    quiet(learn, lambda: learn.fit(1, 1e-3))
    assert learn.loss_func.func.ignore_index == 255 and np.isfinite(float(learn.recorder.losses[-1]))


def test_an_architecture_as_a_function(path):
    learn = seg_learner(loaders(path), fv.resnet18, pretrained=False)
    assert learn.model.config["name"] == "resnet18"
    with pytest.raises(ValueError, match="timm has no model 'squeezenet1_0'"): seg_learner(loaders(path), fv.squeezenet1_0)


def test_mixup_mixes_losses_image_by_image(path):
    learn = seg_learner(loaders(path), cbs=fv.MixUp())
    quiet(learn, lambda: learn.fit(1, 1e-3))
    assert np.isfinite(float(learn.recorder.losses[-1]))
    mix, x, y = fv.MixUp(), torch.rand(4, 11, 8, 8), torch.randint(0, 11, (4, 8, 8))
    mix.learn = learn
    mix.stack_y, mix.lam, mix.yb1, mix.old_lf = True, torch.tensor([1., .5, .2, 0.]), (y.flip(0),), learn.loss_func
    learn.training = True
    each = torch.stack([torch.lerp(learn.loss_func(x[i:i+1], y.flip(0)[i:i+1]), learn.loss_func(x[i:i+1], y[i:i+1]), mix.lam[i]) for i in range(4)])
    assert torch.allclose(mix.lf(x, y), each.mean(), atol=1e-5)
    mix.learn = None


def test_cutmix_is_refused(path):
    learn = seg_learner(loaders(path), cbs=fv.CutMix())
    with pytest.raises(NotImplementedError, match="CutMix weighs the labels of two whole images"): learn.fit(1)


def fastais(path, normalize=False):
    codes, norm = (path / "codes.txt").read_text().split(), [fv.Normalize.from_stats(*fv.imagenet_stats)] if normalize else []
    return fv.SegmentationDataLoaders.from_label_func(path, bs=4, fnames=fv.get_image_files(path / "images"), codes=codes, device=torch.device("cpu"),
        label_func=lambda o: path / "labels" / f"{o.stem}_P{o.suffix}", batch_tfms=[*fv.aug_transforms(size=(64, 64)), *norm])


def test_fastais_loaders(path, image, tmp_path):
    learn = seg_learner(fastais(path))
    assert learn.dls.classes == loaders(path).classes                   # void is found by its name
    x, y = learn.dls.one_batch()
    assert 0 <= x.min() and x.max() <= 1 and set(y.unique().tolist()) <= {*range(11), 255}
    quiet(learn, lambda: learn.fit_one_cycle(1, 1e-3))
    assert learn.scores().loc["all", "pixels"] > 0 and learn.show_results(max_n=2).axes
    assert learn.predict(image)[0].shape == (96, 128)
    from segnb.all import load_model
    assert load_model(learn.save_model(tmp_path / "m.safetensors")).predict(image).shape == (96, 128)


def test_a_data_block(path):
    codes = (path / "codes.txt").read_text().split()
    block = fv.DataBlock(blocks=(fv.ImageBlock, fv.MaskBlock(codes)), get_items=fv.get_image_files, splitter=fv.RandomSplitter(seed=1),
                         get_y=lambda o: path / "labels" / f"{o.stem}_P{o.suffix}", item_tfms=fv.Resize((64, 64)))
    learn = seg_learner(block.dataloaders(path / "images", bs=4, device=torch.device("cpu")))
    quiet(learn, lambda: learn.fit(1, 1e-3))
    assert np.isfinite(float(learn.recorder.losses[-1]))


def test_nothing_is_normalised_twice(path):
    with pytest.warns(UserWarning, match="Normalize is taken out of the loaders"): learn = seg_learner(fastais(path, normalize=True))
    for dl in learn.dls.loaders: assert 0 <= dl.one_batch()[0].min() and dl.one_batch()[0].max() <= 1


def test_loaders_that_do_not_know_their_classes(path):
    dls = fv.SegmentationDataLoaders.from_label_func(path, bs=4, fnames=fv.get_image_files(path / "images"), device=torch.device("cpu"),
                                                     label_func=lambda o: path / "labels" / f"{o.stem}_P{o.suffix}")
    with pytest.raises(ValueError, match="pass codes= to SegmentationDataLoaders"): seg_learner(dls)


@pytest.mark.parametrize("name", ["pvt_v2_b0", "swin_tiny_patch4_window7_224", "twins_svt_small", "convnext_atto"])
def test_encoders_that_serve(path, name):
    learn = seg_learner(loaders(path), name, pretrained=False)
    x, y = learn.dls.one_batch()
    out = learn.model(x)
    assert out.shape == (4, 11, 64, 64)
    learn.loss_func(out, y).backward()
    assert learn.predict(sorted((path / "images").iterdir())[0])[0].shape == (96, 128)


@pytest.mark.parametrize("name, why", [("vit_tiny_patch16_224", "maps that get smaller"), ("hiera_tiny_224", "one size only"),
                                       ("resnet81", "did you mean resnet"), ("tf_efficientnet_lit0", "tf_efficientnet_lite0")])
def test_encoders_that_do_not_are_refused_before_data_is_read(tmp_path, name, why):
    from conftest import segnb
    run = segnb("train", tmp_path / "not yet looked for", "--encoder", name)
    assert run.returncode == 2 and why in run.stderr and len(run.stderr.strip().splitlines()) == 1


def test_full_precision(path):
    for precision in ("bf16", "fp32"):
        learn = seg_learner(loaders(path), pretrained=False, precision=precision)
        assert learn.half == (precision == "bf16") and learn.to_fp32() is learn and not learn.half


def test_the_bar_reads_the_loss_once_a_second(path):
    from fastai.callback.progress import ProgressCallback
    from segnb.training import Progress
    learn = seg_learner(loaders(path), pretrained=False)
    with learn.no_bar(): pass                       # fastai puts its own back
    assert type(learn.progress) is Progress
    other = seg_learner(loaders(path), pretrained=False)
    bars = lambda: len(other.cbs.filter(lambda cb: cb.name == "progress"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with other.added_cbs(ProgressCallback()): assert bars() == 2
    assert bars() == 1
    reads = []
    class Loss(torch.Tensor):
        def item(self): return reads.append(1) or 0.
    bar = learn.progress
    bar.pbar = fv.SimpleNamespace(update=lambda n: None)
    learn.smooth_loss, learn.iter = torch.zeros(()).as_subclass(Loss), 0
    for _ in range(50): bar.after_batch()
    assert len(reads) == 1 and bar.pbar.comment == "0.0000"


def test_fine_tune_without_frozen_epochs(path):
    learn = seg_learner(loaders(path), pretrained=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*training steps")
        quiet(learn, lambda: learn.fine_tune(60, freeze_epochs=0, cbs=Stop()))
        quiet(learn, lambda: learn.fine_tune(60, cbs=Stop()))
    assert all(p.requires_grad for p in learn.model.parameters())


class Stop(fv.Callback):
    def before_train(self): raise fv.CancelFitException


def test_an_augmentation_is_told_from_another(path):
    from segnb.augment import SegAugment
    assert repr(SegAugment(64)) == "SegAugment(crop=(64, 64), zoom=(0.7, 1.6), max_rotate=0.0, dihedral=False)"
    assert repr(SegAugment(64, flip=False, focus=[3])).endswith("dihedral=False, flip=False, focus=[3])")
