"Drawn cells, instance maps, and the F1 over instances against other ways to compute it"
import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment
from skimage.metrics import contingency_table

from segnb.instances import (DEEPEST, UNKNOWN, border_mask, components, distance_mask, instance_scores,
                             known_instances, match_instances, paste_touching, place_beside, renumbered,
                             split_border, split_distance, split_mask)
from segnb.samples import cells, draw_cells


@pytest.fixture(scope="module")
def drawn(): return [draw_cells(np.random.default_rng([7, i])) for i in range(12)]


def numbers(m): return np.setdiff1d(m, (0, UNKNOWN))


def test_same_seed_same_bytes(tmp_path):
    a, b, other = (cells(tmp_path / n, n=5, size=(64, 80), seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    files = sorted(f.relative_to(a) for f in a.rglob("*") if f.is_file())
    assert len(files) == 11 and all((a / f).read_bytes() == (b / f).read_bytes() for f in files)
    assert (a / "images/0000.png").read_bytes() != (other / "images/0000.png").read_bytes()
    image, instances = (np.asarray(Image.open(a / of / "0000.png")) for of in ("images", "instances"))
    assert image.shape == instances.shape == (64, 80)
    assert image.dtype == np.uint8 and instances.dtype == np.uint16


def test_drawn_instances_are_exact(drawn):
    touching = 0
    for image, instances in drawn:
        assert numbers(instances).tolist() == list(range(1, instances.max() + 1))
        for k in numbers(instances):
            assert components(instances == k).max() == 1 and (instances == k).sum() > 30
            inside, near = image[instances == k].mean(), image[instances == 0].mean()
            assert inside > near + 10, "a nucleus is brighter than what is around it"
        touching += instances.max() - components(instances > 0).max()
    assert touching > .2 * sum(i.max() for _, i in drawn)


def test_no_touching_where_none_is_asked_for():
    for i in range(6):
        instances = draw_cells(np.random.default_rng(i), touching=0)[1]
        near = border_mask(instances, 1)
        assert components(instances > 0).max() >= .7 * instances.max() and (near == 2).mean() < .02


def by_assignment(pred, true, iou):
    "The same question by scikit-image's table of overlaps and SciPy's assignment"
    known = true != UNKNOWN
    t, p = (m[known].astype(int) for m in (true, pred))
    both = contingency_table(t, p, normalize=False, sparse_type="array")
    both = both.toarray()
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    ious = (both / np.maximum(union, 1))[1:, 1:]
    i, j = linear_sum_assignment(-ious)
    return [(int(a) + 1, int(b) + 1) for a, b in zip(i, j) if ious[a, b] > iou]


@pytest.mark.parametrize("iou", [.5, .7])
def test_matches_are_those_of_an_assignment(drawn, iou):
    preds = [split_mask(t > 0, .25) for _, t in drawn] + [components(np.roll(t, 2, 1) > 0) for _, t in drawn]
    trues = [t for _, t in drawn] * 2
    found = [match_instances(p, t, iou) for p, t in zip(preds, trues)]
    assert [f[0] for f in found] == [by_assignment(p, t, iou) for p, t in zip(preds, trues)]
    hits, missed, extra = (sum(len(f[k]) for f in found) for k in range(3))
    assert hits and missed and extra
    scores = instance_scores(preds, trues, iou)
    true, pred = (sum(len(numbers(m)) for m in ms) for ms in (trues, preds))
    assert hits + missed == true and hits + extra == pred
    assert scores["F1"] == pytest.approx(2 * hits / (true + pred))
    assert scores["count_bias"] == pytest.approx((pred - true) / true)


def test_a_case_by_hand():
    true, pred = np.zeros((2, 6, 20), dtype=np.uint16)
    true[1:5, 1:5], true[1:5, 8:12] = 1, 2                              # two squares of 16 pixels
    pred[1:5, 2:6], pred[1:5, 10:14], pred[0:2, 16:18] = 1, 2, 3        # IoU 12/20, 8/24; and one too many
    assert match_instances(pred, true) == ([(1, 1)], [2], [2, 3])
    assert match_instances(pred, true, .6) == ([], [1, 2], [1, 2, 3])   # 0.6 is not above 0.6
    scores = instance_scores([pred], [true])
    by_hand = dict(F1=2 / 5, precision=1 / 3, recall=1 / 2, count_error=.5, count_bias=.5)
    assert scores == pytest.approx(by_hand)
    true[0:2, 16:18] = UNKNOWN                                          # now nobody knows: it does not count
    assert match_instances(pred, true) == ([(1, 1)], [2], [2])
    assert instance_scores([pred, pred], [true, true])["F1"] == .5


def test_one_error_up_and_one_down_do_not_cancel():
    one, two = np.zeros((2, 8, 12), dtype=np.uint16)
    one[1:7, 1:11], two[1:7, 1:6], two[1:7, 6:11] = 1, 1, 2
    scores = instance_scores([one, two], [two, one])
    assert scores["count_bias"] == 0 and scores["count_error"] == pytest.approx(2 / 3)


def test_targets_give_the_instances_back(drawn):
    trues = [t for _, t in drawn]
    assert instance_scores([split_border(border_mask(t)) for t in trues], trues)["F1"] > .98
    from_distances = [split_distance(t > 0, distance_mask(t) / DEEPEST) for t in trues]
    assert instance_scores(from_distances, trues)["F1"] > .97
    merged = instance_scores([components(t > 0) for t in trues], trues)
    cut = instance_scores([split_mask(t > 0, .5) for t in trues], trues)
    assert merged["count_bias"] < -.2 and merged["F1"] < cut["F1"] - .1
    for t in trues:
        d = distance_mask(t)
        assert ((d > 0) == (t > 0)).all() and all(d[t == k].max() == DEEPEST for k in numbers(t))


def test_unknown_stays_unknown(drawn):
    t = known_instances(drawn[0][1] > 0)
    assert (t == UNKNOWN).any() and len(numbers(t)), "some are convex, and some are not"
    for target in (border_mask, distance_mask): assert ((target(t) == 255) == (t == UNKNOWN)).all()
    assert (renumbered(t, 10**6) == np.where(t == UNKNOWN, UNKNOWN, 0)).all()


@pytest.mark.parametrize("depth", [0, 2])
def test_pasted_instances_touch_one_other(depth):
    image, alone = draw_cells(np.random.default_rng(4), (128, 128), 14, touching=0)
    alone = known_instances(alone > 0)
    made, instances, pairs = paste_touching(image, alone, np.random.default_rng(1), 3, depth)
    assert len(pairs) == 3 and len(numbers(instances)) == len(numbers(alone)) + 3
    assert made.shape == image.shape and (made != image).any() and np.isfinite(made).all()
    for old, new in pairs:
        assert components(np.isin(instances, (old, new))).max() == 1, "they touch"
        taken = ((alone == old) & (instances == new)).sum()
        assert taken == 0 if depth == 0 else 0 < taken < .5 * (alone == old).sum()
    untouched = instances == alone
    assert ((instances > len(numbers(alone))) | untouched).all(), "nothing else has changed"
    rgb = paste_touching(np.stack([image] * 3, -1), alone, np.random.default_rng(1), 3, depth)
    assert np.array_equal(rgb[0][..., 0], made) and rgb[2] == pairs


def test_nothing_is_placed_over_the_edge_or_over_a_third():
    instances = np.zeros((30, 30), dtype=np.uint16)
    instances[12:18, 12:18] = 1
    cut = np.ones((6, 6), dtype=bool)
    assert place_beside(cut, instances, 1, 0.) == (12, 18)
    assert place_beside(cut, instances, 1, 0., 2) == (12, 16)
    assert place_beside(np.ones((6, 14), dtype=bool), instances, 1, 0.) is None
    instances[12:18, 20:22] = 2
    assert place_beside(cut, instances, 1, 0.) is None


def test_it_says_what_is_wrong(monkeypatch):
    a = np.ones((4, 4), dtype=np.uint16)
    with pytest.raises(ValueError, match=r"iou=0.3: it must be at least 0.5"): match_instances(a, a, .3)
    with pytest.raises(ValueError, match=r"predicted \(4, 4\) and true \(3, 4\)"): match_instances(a, a[1:])
    with pytest.raises(ValueError, match="nothing to score"): instance_scores([a], [a * 0])
    monkeypatch.setitem(__import__("sys").modules, "skimage.measure", None)
    with pytest.raises(ImportError, match=r"pip install 'segnb\[instances\]'"): split_mask(a > 0)


def test_small_components_are_left_whole():
    "A peak that is too low for a seed is no reason to lose what it stands on"
    from segnb.instances import split_mask
    m = np.zeros((40, 60), bool)
    m[2, 2] = m[10:13, 10:13] = m[20:22, 3:48] = m[25:35, 20:30] = True
    found = split_mask(m)
    assert ((found > 0) == m).all() and len(numbers(found)) == 4
