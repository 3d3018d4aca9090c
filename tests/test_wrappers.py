"""Properties of the wrappers, over random input."""
import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings, strategies as st

from segnb.masks import Codes
from segnb.calibrate import Reliability, disagreement, entropy, fit_temperature
from segnb.core import peak_memory
from segnb.model_file import SegModel, tile_starts, tile_weight
from segnb.tta import TTA, Ensemble, Probs, Tiled, as_probs, views

some = settings(max_examples=40, deadline=None)
size = st.integers(1, 40)


def pixelwise(seed=0, n=4):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, n, 1))


class Equivariant(nn.Module):
    "Sees its neighbours, and treats all directions alike"
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.mix = pixelwise(seed)
        a, b, c = torch.rand(3)
        self.register_buffer("kernel", torch.tensor([[a, b, a], [b, c, b], [a, b, a]])[None, None].expand(3, 1, 3, 3))
    def forward(self, x): return self.mix(nn.functional.conv2d(x, self.kernel, padding=1, groups=3))


@some
@given(size, size, st.sampled_from(views["dihedral"]))
def test_view_and_back(h, w, view):
    x = torch.rand(2, 3, h, w)
    assert torch.equal(view.back(view(x)), x)
    assert view(x).shape[-2:] == ((w, h) if view.swap else (h, w))


@some
@given(size, size, st.integers(0, 99), st.sampled_from(["prob", "logit"]), st.sampled_from(["none", "flip", "dihedral"]))
def test_tta_changes_nothing_for_single_pixels(h, w, seed, mean, which):
    net, x = pixelwise(seed), torch.rand(2, 3, h, w)
    assert torch.allclose(TTA(net, which, mean=mean)(x), as_probs(net)(x), atol=1e-5)


@some
@given(st.integers(3, 40), st.integers(3, 40), st.integers(0, 99))
def test_all_views_of_an_equivariant_model_agree(h, w, seed):
    net, x = Probs(Equivariant(seed)), torch.rand(1, 3, h, w)
    for v in views["dihedral"]: assert torch.allclose(v.back(net(v(x))), net(x), atol=1e-5)
    assert torch.allclose(TTA(net, "dihedral")(x), net(x), atol=1e-5)


@some
@given(size, size, st.lists(st.floats(.1, 5), min_size=1, max_size=4))
def test_ensemble_of_a_model_with_itself(h, w, weights):
    net, x = pixelwise(), torch.rand(1, 3, h, w)
    assert torch.allclose(Ensemble(*[net] * len(weights), weights=weights)(x), as_probs(net)(x), atol=1e-5)


@some
@given(st.integers(1, 3000), st.integers(1, 300), st.floats(0, .9))
def test_tiles_cover_every_pixel(n, tile, overlap):
    starts, t = tile_starts(n, tile, overlap), min(n, tile)
    assert starts[0] == 0 and starts[-1] + t == n and starts == sorted(set(starts))
    total = torch.zeros(n)
    for s in starts: total[s:s + t] += tile_weight(t)
    assert (total > 0).all()
    shares = torch.zeros(n, dtype=torch.float64)
    for s in starts: shares[s:s + t] += (tile_weight(t) / total[s:s + t]).double()
    assert torch.allclose(shares, torch.ones_like(shares), atol=1e-5)


@some
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([8, 16, 33]), st.sampled_from(["flat", "gaussian"]), st.floats(0, .75))
def test_tiles_of_single_pixels_are_the_whole(h, w, tile, weight, overlap):
    net, x = pixelwise(), torch.rand(1, 3, h, w)
    tiled = Tiled(net, tile, overlap, weight)
    assert torch.allclose(tiled(x), as_probs(net)(x), atol=1e-4)
    assert torch.equal(tiled.classify(x), tiled(x).argmax(1).byte())


@some
@given(st.integers(5, 90), st.integers(5, 90))
def test_a_margin_as_wide_as_the_model_sees_makes_tiles_exact(h, w):
    net, x = Probs(Equivariant(3)), torch.rand(1, 3, h, w)
    assert torch.allclose(Tiled(net, 16, .25, "gaussian", margin=1)(x), net(x), atol=1e-4)


def test_they_nest_in_any_order():
    a, b, x = Equivariant(1), Equivariant(2), torch.rand(1, 3, 40, 50)
    first = Tiled(TTA(Ensemble(a, b)), 16, .25, margin=1)(x)
    second = Ensemble(TTA(Tiled(a, 16, .25, margin=1)), TTA(Tiled(b, 16, .25, margin=1)))(x)
    third = TTA(Tiled(Ensemble(a, b), 16, .25, margin=1))(x)
    assert torch.allclose(first, second, atol=1e-4) and torch.allclose(first, third, atol=1e-4)


def test_bfloat16_agrees_with_float32():
    net, x = Equivariant(1), torch.rand(2, 3, 30, 40)
    full, half = TTA(Probs(net))(x), TTA(Probs(net, half=True))(x)
    assert half.dtype == torch.float32 and (full - half).abs().max() < .02


def test_other_classes_are_refused_with_both_lists():
    a, b = SegModel(pixelwise(), Codes(["road", "tree", "sky", "car"])), SegModel(pixelwise(), Codes(["road", "sky", "tree", "car"]))
    with pytest.raises(ValueError, match=r"\['road', 'tree', 'sky', 'car'\].*\['road', 'sky', 'tree', 'car'\]"): Ensemble(a, b)


def test_a_large_image_in_little_memory():
    "Only the strip in work is kept: the probabilities of all the rows that a taller image has more would be 384 MB"
    codes = Codes([f"c{i}" for i in range(20)])
    big = SegModel(Tiled(pixelwise(n=20), 256), codes)
    image = torch.randint(0, 256, (5000, 1200, 3), dtype=torch.uint8).numpy()
    big.predict(image[:1000])                                 # what a first call makes for good, buffers and threads
    peaks = []
    for rows in (1000, 5000):
        with peak_memory() as mb: mask = big.predict(image[:rows])
        assert mask.shape == (rows, 1200)
        peaks.append(mb[-1])
    assert peaks[1]-peaks[0] < 200, peaks                     # the allocator keeps some freed memory, more or less
    assert (mask[:64, :64] == SegModel(pixelwise(n=20), codes).predict(image[:64, :64])).mean() > .999


@some
@given(st.integers(2, 6), st.floats(.4, 3), st.integers(0, 999))
def test_temperature_is_found_again(n, t, seed):
    g = torch.Generator().manual_seed(seed)
    honest = torch.randn(20_000, n, generator=g) * 2
    y = torch.multinomial(honest.softmax(1), 1, generator=g)[:, 0]
    assert abs(fit_temperature(honest * t, y) / t - 1) < .1


@some
@given(st.integers(2, 6), st.integers(0, 999))
def test_reliability_however_cut_and_without_void(n, seed):
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(4, n, 6, 7, generator=g).softmax(1)
    y = torch.randint(0, n, (4, 6, 7), generator=g)
    y[torch.rand(y.shape, generator=g) < .3] = 255
    whole, cut = Reliability(range(n)).add(p, y), Reliability(range(n))
    for i in range(4): cut.add(p[i:i + 1], y[i:i + 1])
    assert torch.allclose(whole.count, cut.count) and whole.count.sum() == (y != 255).sum()
    conf, pred = p.max(1)
    keep = y != 255
    gap = 0.
    for k in range(15):
        inside = keep & ((conf * 15).long().clamp(max=14) == k)
        if inside.any(): gap += abs(float(conf[inside].sum()) - float((pred == y)[inside].sum()))
    assert abs(whole.ece - gap / max(1, int(keep.sum()))) < 1e-6 or not keep.any()


@some
@given(st.integers(2, 5), st.integers(0, 999))
def test_disagreement_is_never_negative_and_at_most_the_entropy(n, seed):
    g = torch.Generator().manual_seed(seed)
    ps = [torch.rand(n, 3, 4, generator=g).mul(8).softmax(0) for _ in range(3)]
    d = disagreement(ps)
    assert (d >= 0).all() and (d <= entropy(sum(ps) / 3) + 1e-5).all()
