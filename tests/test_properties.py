"""Properties that hold for any input, over random ones."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn import metrics as skm

from segnb.augment import SegAugment, linear_part, random_center, resample, sample_grid
from segnb.core import VOID
from segnb.dataset import FoldSplitter
from segnb.masks import Codes
from segnb.draw import class_colors
from segnb.loss import SegLoss, dice_loss, seg_cross_entropy
from segnb.metrics import ConfusionMatrix
from segnb.unet import EncoderUNet, UNet

some = settings(max_examples=40, deadline=None)
few = settings(max_examples=8, deadline=None)


@some
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=40, unique=True), st.data())
def test_codes_there_and_back(values, data):
    void = data.draw(st.sampled_from([None, values[0], 255]))
    codes = Codes([f"c{i}" for i in range(len(values))], void=[void] if void is not None else [], values=values)
    learned = [v for v in values if v not in codes.void_values]
    file = np.array(data.draw(st.lists(st.sampled_from(learned), min_size=1, max_size=50)))
    assert (codes.decode(codes.encode(file)) == file).all()
    assert codes.encode(file).max() < len(codes)
    stranger = next(v for v in range(1002) if v not in values and v not in codes.void_values)
    with pytest.raises(ValueError, match=str(stranger)): codes.encode(np.append(file, stranger))


@some
@given(st.integers(0, 2**31), st.integers(24, 90), st.integers(24, 90), st.integers(8, 64), st.integers(8, 64), st.booleans(), st.booleans())
def test_mask_moves_with_image(seed, H, W, h, w, dihedral, bent):
    "An image whose channels say which class a pixel has: wherever a crop's pixel is not a blend, its mask agrees"
    torch.manual_seed(seed)
    mask = torch.randint(0, 4, (1, H // 8 + 1, W // 8 + 1)).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :H, :W].byte()
    image = torch.stack([(mask == c) * 255 for c in (1, 2, 3)], 1).byte()
    bends = dict(max_warp=.3, elastic=3) if bent else {}
    x, y = SegAugment((h, w), zoom=(.5, 2), max_rotate=30, dihedral=dihedral, max_lighting=0, **bends)((image, mask))
    assert x.shape == (1, 3, h, w) and y.shape == (1, h, w) and y.dtype == torch.int64
    x, y = x[0].as_subclass(torch.Tensor), y[0].as_subclass(torch.Tensor)
    assert set(y.unique().tolist()) <= {0, 1, 2, 3, VOID}
    pure = ((x < .02) | (x > .98)).all(0) & (y != VOID)
    shown = torch.cat([1 - x.sum(0, keepdim=True), x]).argmax(0)
    assert torch.equal(shown[pure], y[pure])
    if (y != VOID).sum() > 400: assert pure.any()


@some
@given(st.integers(20, 200), st.integers(20, 200), st.integers(8, 64), st.floats(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_windows_that_fit_stay_inside(H, W, crop, zoom, u, v):
    M = linear_part(torch.tensor([zoom]), torch.ones(1), torch.zeros(1), torch.zeros(1, dtype=torch.bool))
    c = random_center(M, (crop, crop), (H, W), torch.tensor([[u, v]]))
    y = resample(torch.zeros(1, 3, H, W, dtype=torch.uint8), torch.zeros(1, H, W, dtype=torch.uint8), sample_grid(M, c, (crop, crop), (H, W)))[1]
    if crop / zoom <= min(H, W) - 1e-3: assert (y == 0).all()


@some
@given(st.integers(0, 2**31), st.integers(60, 200), st.integers(8, 32), st.floats(0, .24))
def test_warped_windows_that_fit_stay_inside(seed, side, crop, warp):
    torch.manual_seed(seed)
    a = SegAugment(crop, zoom=(1, 2), aspect=(1, 1), max_warp=warp)
    _, y = a((torch.zeros(4, 3, side, side, dtype=torch.uint8), torch.zeros(4, side, side, dtype=torch.uint8)))
    if crop / (1 - 2*warp) < side - 1e-3: assert (y == 0).all()


@some
@given(st.integers(1, 12), st.integers(0, 2**31), st.booleans())
def test_confusion_matrix_is_sklearns_however_cut(n, seed, logits):
    g = torch.Generator().manual_seed(seed)
    t = torch.randint(0, n, (4, 9, 7), generator=g); p = torch.randint(0, n, (4, 9, 7), generator=g)
    t[torch.rand(t.shape, generator=g) < .2] = VOID
    pred = torch.nn.functional.one_hot(p, n).permute(0, 3, 1, 2).float() if logits else p
    whole, cut = ConfusionMatrix(n).add(pred, t), ConfusionMatrix(n)
    for i in (slice(0, 1), slice(1, 4)): cut.add(pred[i], t[i])
    T, P = t[t != VOID].numpy(), p[t != VOID].numpy()
    assert torch.equal(whole.matrix, cut.matrix)
    assert (whole.matrix.numpy() == skm.confusion_matrix(T, P, labels=range(n))).all()
    there = [c for c in range(n) if c in T or c in P]
    iou = skm.jaccard_score(T, P, labels=there, average=None, zero_division=0)
    assert np.allclose(whole.iou[there], iou) and whole.iou[[c for c in range(n) if c not in there]].isnan().all()
    assert np.isclose(whole.mean_iou, iou.mean()) and np.isclose(whole.pixel_acc, (T == P).mean())


@some
@given(st.integers(2, 8), st.integers(0, 2**31), st.floats(0, 4))
def test_losses_ignore_void_and_stay_finite(n, seed, gamma):
    g = torch.Generator().manual_seed(seed)
    logits = (torch.randn(2, n, 8, 9, generator=g) * 20).requires_grad_()
    y = torch.randint(0, n, (2, 8, 9), generator=g); y[:, :4] = VOID
    loss = SegLoss(gamma=gamma, weight=torch.rand(n, generator=g) + .1)(logits, y)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and (logits.grad[:, :, :4] == 0).all()
    other = logits.detach().clone(); other[:, :, :4] = 123.
    assert torch.allclose(SegLoss(gamma=gamma)(logits, y), SegLoss(gamma=gamma)(other, y))


@few
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 4))
def test_networks_take_any_size(h, w, c):
    x = torch.rand(2, c, h, w)
    for net in (UNet(c, 3, width=2, depth=3, pad=True), EncoderUNet(3, in_chans=c, pretrained=False, widths=(8, 8, 8, 8))):
        assert net.eval()(x).shape == (2, 3, h, w)


@some
@given(st.integers(2, 60), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_a_partition(n, k, seed):
    files = [f"clip{i // 3}_{i}.png" for i in range(n)]
    for clip in (None, r"^[^_]+"):
        groups = n if clip is None else -(-n // 3)
        if groups <= k: continue
        sides = [FoldSplitter(f, k, clip=clip, seed=seed)(files) for f in range(k)]
        assert sorted(i for _, v in sides for i in v) == list(range(n))
        if clip: assert all({files[i].split("_")[0] for i in t}.isdisjoint({files[i].split("_")[0] for i in v}) for t, v in sides)


@some
@given(st.integers(1, 255), st.integers(1, 255))
def test_colours_are_stable_and_void_is_black(n, m):
    a, b = class_colors(n), class_colors(m)
    assert (a[:min(n, m)] == b[:min(n, m)]).all() and (a[255] == 0).all()
    assert len({tuple(c) for c in a[:min(n, 60)]}) == min(n, 60)
