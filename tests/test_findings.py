"""From voxels to findings: masks grown from a centre, components, the FROC curve, the classifier, three planes"""
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from conftest import segnb
from segnb.findings import (ThreePlanes, candidates, classify, cubes_of, cut_out, finding_net, froc, group, grow, grow_box, half_level,
                            hits, sensitivity_at, train_classifier)
from segnb.scans import Scan, save_scan

SPACING = (2.5, .8, .7)                                     # z, y, x


def scan_like(a, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(a)
    image.SetSpacing(SPACING[::-1]), image.SetOrigin((-10., 5., 30.)), image.SetDirection(direction)
    return Scan(image)


def lung(balls, shape=(16, 60, 60), air=-850):
    "Hounsfield units with balls `((z,y,x), radius mm, density)` in them, and the mask of the first"
    hu = np.full(shape, float(air))
    first = None
    for c, r, v in balls:
        inside = sum(((g - ci) * s) ** 2 for g, ci, s in zip(np.ogrid[:shape[0], :shape[1], :shape[2]], c, SPACING)) <= r * r
        hu[inside] = v
        first = inside if first is None else first
    return hu, first


@pytest.mark.parametrize("density", [40, -300])
def test_a_free_ball_is_grown_exactly(density):
    hu, ball = lung([((8, 30, 30), 7, density), ((8, 30, 50), 4, 40)])
    mask = grow(hu, (8, 30, 30), 14, SPACING)
    assert np.array_equal(mask, ball) and half_level(hu, (8, 30, 30)) == (density - 850) / 2
    z, y, x = (np.flatnonzero(ball.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3))
    assert grow_box(hu, (8, 30, 30), 14, SPACING, -400) == tuple(slice(v[0], v[-1] + 1) for v in (z, y, x))


def test_what_touches_it_is_left_out_by_the_ball():
    hu, ball = lung([((8, 30, 30), 6, 40)])
    hu[:, 35:] = 40                                         # a wall
    hu[8, 29:31] = 40                                       # a vessel through the middle
    with_ball, without = (grow(hu, (8, 30, 30), 12, SPACING, ball=b) for b in (True, False))
    dice = lambda m: 2 * (m & ball).sum() / (m.sum() + ball.sum())
    assert dice(with_ball) > .85 > dice(without) and (with_ball & ~without).sum() == 0


def test_the_smallest_is_a_voxel_and_the_end_of_the_volume_is_one():
    hu, _ = lung([])
    hu[0, 0, 0] = -600
    assert np.argwhere(grow(hu, (0, 0, 0), 3, SPACING)).tolist() == [[0, 0, 0]]
    hu[:] = 40                                              # nothing but tissue: the diameter alone ends it
    mask = grow(hu, (8, 30, 30), 10, SPACING, level=-400, ball=False)
    assert mask.sum() == 5 * 15 * 17
    for at in ((16, 0, 0), (0, -1, 0)):
        with pytest.raises(ValueError, match="outside the volume"): grow(hu, at, 3, SPACING)


def test_components_are_those_of_simpleitk():
    rng = np.random.default_rng(0)
    p = ndimage.gaussian_filter(rng.random((12, 40, 40)), 1)
    p = ((p - p.min()) / np.ptp(p)).astype(np.float32)
    scan = scan_like(p, (.8, .6, 0, -.6, .8, 0, 0, 0, 1))
    table, labels = group(p, scan, .7)
    theirs = sitk.LabelIntensityStatisticsImageFilter()
    theirs.Execute(sitk.ConnectedComponent(scan.image >= .7, True), scan.image)
    assert len(table) == theirs.GetNumberOfLabels() > 4 and labels.max() == len(table)
    of = lambda get: np.array([get(k) for k in theirs.GetLabels()])
    order = np.argsort(table.coordX), np.argsort(of(theirs.GetCenterOfGravity)[:, 0])
    mine = table.iloc[order[0]]
    assert np.allclose(mine[["coordX", "coordY", "coordZ"]], of(theirs.GetCenterOfGravity)[order[1]], atol=1e-3)
    assert np.allclose(mine.volume_mm3, of(theirs.GetPhysicalSize)[order[1]]) and np.allclose(mine.probability, of(theirs.GetMean)[order[1]])
    assert np.allclose(mine.diameter_mm, 2 * of(theirs.GetEquivalentSphericalRadius)[order[1]])


def test_corners_touch_and_nothing_is_an_empty_table():
    p = np.zeros((4, 6, 6))
    p[1, 1, 1] = p[2, 2, 2] = .8
    p[1, 4, 4] = .6
    scan = scan_like(p)
    assert group(p, scan)[0].volume_mm3.round(3).tolist() == [2 * 1.4, 1.4]
    empty, labels = group(p, scan, .9)
    assert len(empty) == 0 and not labels.any() and {"coordX", "volume_mm3", "probability"} <= set(empty)


def test_millimetres_do_not_depend_on_how_a_file_lies():
    p = np.zeros((6, 20, 24))
    p[2, 5:8, 16:19] = 1
    scan = scan_like(p)
    turned = scan.oriented("RAS")
    assert not np.array_equal(turned.array, p)
    one, other = group(p, scan)[0], group(p, turned)[0]    # `p` lies in LPS either way
    assert np.allclose(one, other, atol=1e-4)
    assert np.allclose(scan.voxels(one[["coordX", "coordY", "coordZ"]]), [[2, 6, 17]], atol=1e-4)
    assert np.allclose(scan.millimetres([[2, 6, 17]]), scan.image.TransformIndexToPhysicalPoint([17, 6, 2]), atol=1e-4)


def places(*xs, **columns): return pd.DataFrame(dict(coordX=np.array(xs, float), coordY=0., coordZ=0.)).assign(**columns)


NODULES = places(0, 20, 50, seriesuid=["a", "a", "b"], diameter_mm=[6., 10., 4.])
FOUND = places(2.9, 3.1, 24, -1, 50, 0, seriesuid=["a", "a", "a", "a", "b", "c"], probability=[.9, .8, .7, .6, .5, .4])


def test_hits_and_curve_counted_by_hand():
    assert hits(FOUND, NODULES).tolist() == [0, -1, 1, 0, 2, -1]
    curve = froc(FOUND, NODULES, scans=4)
    assert curve.threshold.tolist() == [.9, .8, .7, .6, .5, .4]
    assert curve.fps.tolist() == [0, .25, .25, .25, .25, .5]
    assert np.allclose(curve.sensitivity, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert np.allclose(sensitivity_at(curve, (.1, .25, 8)), [1 / 3, 1, 1])
    assert hits(FOUND, NODULES, least=3.2).tolist() == [0, 0, 1, 0, 2, -1]
    ignored = places(0, seriesuid=["c"], diameter_mm=[5.])
    assert froc(FOUND, NODULES, 4, ignored=ignored).fps.tolist() == [0, .25, .25, .25, .25, .25]


def test_ties_stand_at_one_threshold_and_a_missed_nodule_is_never_found():
    found = FOUND.assign(probability=.5)[:4]
    curve = froc(found, NODULES, 2)
    assert curve.values.tolist() == [[.5, .5, 2 / 3]]
    assert sensitivity_at(curve, (.4, 1)).tolist() == [0, 2 / 3]
    assert froc(FOUND[:0], NODULES, 2).empty and sensitivity_at(froc(FOUND[:0], NODULES, 2)).eq(0).all()


def test_two_nodules_near_one_another_get_their_own_findings():
    nodules = places(0, 4, seriesuid="a", diameter_mm=10.)
    assert hits(places(-1, 1.9, 2.1, 9.1, seriesuid="a"), nodules).tolist() == [0, 0, 1, -1]


def test_cubes_have_one_spacing():
    """A gradient in mm along each axis is the same gradient in the cube, whatever the voxels are"""
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip((20, 60, 70), SPACING)), indexing="ij")
    for axis in range(3):
        levels = (4 * grid[axis]).clip(0, 255).astype(np.uint8)
        cube = cut_out(levels, SPACING, [[10, 30.5, 34]], size=9, mm=1.)[0].astype(float)
        assert np.abs(np.diff(cube, axis=axis) - 4).max() <= 1.5 and np.abs(np.diff(cube, axis=(axis + 1) % 3)).max() == 0
        assert abs(cube[4, 4, 4] - 4 * [10, 30.5, 34][axis] * SPACING[axis]) <= 1.5


def test_findings_of_scans_that_are_not_given(tmp_path):
    found = places(0, 1, seriesuid=["a", "b"])
    with pytest.raises(ValueError, match="findings in a, b"): cubes_of(found, [])
    assert len(cubes_of(found[:0], [])) == 0


def made(n, seed):
    "Cubes with a ball, or a tube along one of the axes, in the middle; and whether it is a ball"
    rng = np.random.default_rng(seed)
    y = rng.random(n) < .4
    g = np.meshgrid(*[np.arange(17) - 8.] * 3, indexing="ij")
    cubes = rng.normal(40, 8, (n, 17, 17, 17))
    for c, ball in zip(cubes, y):
        off = [o - rng.uniform(-1, 1) for o in g]
        keep = [0, 1, 2] if ball else np.delete([0, 1, 2], rng.integers(3))
        c[sum(off[k] ** 2 for k in keep) < rng.uniform(2.5, 4) ** 2] = 180
    return cubes.clip(0, 255).astype(np.uint8), y


def test_the_classifier_learns_shapes():
    torch.set_num_threads(1)
    (x, y), (xt, yt) = made(160, 0), made(80, 1)
    net = train_classifier(x, y, epochs=8, width=8, bs=16)
    p = classify(net, xt)
    assert ((p > .5) == yt).mean() > .9
    assert np.array_equal(p, classify(train_classifier(x, y, epochs=8, width=8, bs=16), xt)), "the seed decides all"
    assert np.allclose(p, classify(net, xt[:, ::-1].copy()), atol=1e-5), "mirrored is the same"
    assert len(classify(net, xt[:0])) == 0
    with pytest.raises(ValueError, match="one kind only"): train_classifier(x, y * False)


def test_three_planes_are_those_through_the_middle():
    x = torch.arange(5 ** 3, dtype=torch.uint8).view(1, 5, 5, 5)
    planes = ThreePlanes(0)(x) * 255
    assert torch.equal(planes[0].round().byte(), torch.stack([x[0, 2], x[0, :, 2], x[0, :, :, 2]]))
    assert ThreePlanes(1)(x).shape == (1, 9, 5, 5) and finding_net(2)(torch.zeros(2, 17, 17, 17, dtype=torch.uint8)).shape == (2, 1)


class Dense:
    "In place of a trained network: probability by density"
    def class_probs(self, scan, name, axes=None, bs=None): return (scan.array.clip(-850, 40) + 850) / 890


def test_candidates_of_files_that_lie_in_different_ways(tmp_path):
    hu, _ = lung([((5, 20, 25), 5, 40), ((10, 40, 40), 4, -100)])
    a, b = scan_like(hu.astype(np.int16)), scan_like(hu.astype(np.int16)).oriented("RAS")
    files = [save_scan(s.array, tmp_path / f"{n}.nii.gz", s) for n, s in dict(a=a, b=b).items()]
    found = candidates(Dense(), files, "nodule", threshold=.4)
    assert found.seriesuid.tolist() == ["a", "a", "b", "b"] and np.allclose(*(g.drop(columns="seriesuid") for _, g in found.groupby("seriesuid")), atol=.01)
    cubes = cubes_of(found, files, size=9, mm=1.)
    assert cubes.shape == (4, 9, 9, 9) and np.abs(cubes[:2].astype(int) - cubes[2:]).max() <= 1
    assert cubes[0, 4, 4, 4] == 189 and cubes[1, 4, 4, 4] == 164                # 40 and -100 HU in the window


def test_three_channels_of_a_volume_are_no_colours(tmp_path, small_set):
    from segnb.all import SegDataLoaders, find_pairs
    from segnb.chests import chests
    from segnb.scans import find_volumes
    ds, split = find_volumes(chests(tmp_path / "c", n=5, shape=(6, 48, 48)), k=1, range=(-1000, 400))
    dls = SegDataLoaders.from_dataset(ds, split, crop=32, bs=4, device="cpu")
    A, _ = dls.train.augment.lighting(8, 3)
    assert torch.equal(A, A.diagonal(dim1=1, dim2=2).diag_embed()), "no slice is mixed with another"
    images, split = find_pairs(small_set)
    A, _ = SegDataLoaders.from_dataset(images, split, crop=32, bs=2, device="cpu").train.augment.lighting(8, 3)
    assert not torch.equal(A, A.diagonal(dim1=1, dim2=2).diag_embed())


def test_planes_show_what_is_at_the_cross_hair():
    from segnb.planes import browse_planes, plane_of, plane_panels, voxel_at
    a = np.random.default_rng(0).integers(-1000, 400, (5, 7, 9))
    at = (1, 2, 6)
    for name, point in dict(axial=(2, 6), coronal=(3, 6), sagittal=(3, 2)).items(): assert plane_of(a, name, at)[point] == a[at]
    panels = plane_panels(a, at, (3, 1, 2), (-1000, 400), cross=False)
    assert [p.image.shape for p in panels] == [(7, 9, 3), (5, 9, 3), (5, 7, 3)] and [p.ratio for p in panels] == [.5, 1.5, 3]
    assert panels[0].image[2, 6, 0] == round((a[at] + 1000) / 1400 * 255)
    assert voxel_at("sagittal", [.99, .01], at, a.shape) == (4, 6, 6)
    mask = np.zeros(a.shape, np.uint8)
    mask[at] = 1
    shown = [np.abs(p.image.astype(int) - q.image).sum(2) for p, q in zip(panels, plane_panels(a, at, (3, 1, 2), (-1000, 400), mask, cross=False))]
    assert [np.argwhere(s).tolist() for s in shown] == [[[2, 6]], [[3, 6]], [[3, 2]]]
    scan = scan_like(a.astype(np.int16))
    found = pd.DataFrame(scan.millimetres([at, (4, 6, 0)]), columns=["coordX", "coordY", "coordZ"]).assign(probability=[.9, .2])
    view = browse_planes(scan, mask, ["other", "nodule"], found)
    assert view.state.at == at and "finding 1 of 2, probability 0.90" in view.text.value and f"{a[at]}, nodule" in view.text.value
    view.controls["finding"].value = 2
    assert view.state.at == (4, 6, 0)
    view.controls["coronal"].value = [.5, .99]
    assert view.state.at == (0, 6, 4)
    before = view.image.html
    view.controls["width"].value = 300
    assert view.image.html != before and view.state.at == (0, 6, 4)
    with pytest.raises(ValueError, match="does not lie on"): browse_planes(scan, mask[1:])


def test_axes_of_the_command(tmp_path, model_file):
    assert "--axes is for scans" in segnb("predict", model_file, tmp_path, "--axes", 0, 1).stderr
