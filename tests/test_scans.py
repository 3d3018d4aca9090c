"""Volumes: reading and saving them, slices with neighbours, predictions on the scan's own grid"""
import os

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from conftest import segnb
from segnb.all import TTA, FoldSplitter, SegDataLoaders, load_model, seg_learner
from segnb.scans import Scan, VolumeDataset, find_volumes, read_label, read_scan, save_scan, windowed
from segnb.volumes import surface_distances, volume_scores

SPACING, ORIGIN = (.7, .8, 2.5), (-10., 5., 30.)            # x, y, z
TURNED = (.8, .6, 0, -.6, .8, 0)                            # the patient lies 37 degrees to the side


def body(shape=(6, 20, 24), seed=0):
    "Hounsfield units with something of -1000 to 900 in every corner"
    return np.random.default_rng(seed).integers(-1000, 900, shape).astype(np.int16)


def as_itk(a, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(a)
    image.SetSpacing(SPACING), image.SetOrigin(ORIGIN), image.SetDirection(direction)
    return image


def dicom(folder, a, along=(1, 0, 0, 0, 1, 0), slope=1, intercept=-1024, uid=None, names="{:03}.dcm"):
    "A series of CT slices, written by pydicom in the order from the highest to the lowest"
    folder.mkdir(parents=True, exist_ok=True)
    up, uid = np.cross(along[:3], along[3:]), uid or generate_uid()
    for k, s in enumerate(a[::-1]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID, d.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
        d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "p", "1.2.3", uid, "1.2.4"
        (d.Rows, d.Columns), d.InstanceNumber, d.SliceThickness = s.shape, k + 1, SPACING[2]
        d.PixelSpacing, d.ImageOrientationPatient = [SPACING[1], SPACING[0]], list(along)
        d.ImagePositionPatient = [round(float(v), 6) for v in np.array(ORIGIN) + up * SPACING[2] * (len(a) - 1 - k)]
        d.RescaleSlope, d.RescaleIntercept, d.SamplesPerPixel = slope, intercept, 1
        d.PhotometricInterpretation, d.BitsAllocated, d.BitsStored, d.HighBit = "MONOCHROME2", 16, 16, 15
        d.PixelRepresentation = 0
        d.PixelData = ((s.astype(float) - intercept) / slope).round().astype(np.uint16).tobytes()
        d.save_as(folder / names.format(k), enforce_file_format=True)
    return folder


def same(scan, a, image):
    assert np.array_equal(scan.array, a)
    assert np.allclose(scan.spacing, SPACING[::-1]) and np.allclose(scan.image.GetOrigin(), ORIGIN, atol=1e-4)
    assert np.allclose(scan.image.GetDirection(), image.GetDirection(), atol=1e-5)


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "mha", "mhd", "nrrd"])
def test_files_come_back_as_they_were(tmp_path, ending):
    a, image = body(), as_itk(body(), (.8, -.6, 0, .6, .8, 0, 0, 0, 1))
    sitk.WriteImage(image, tmp_path / f"a.{ending}")
    same(read_scan(tmp_path / f"a.{ending}"), a, image)
    if ending == "mhd": return
    fn = save_scan(a, tmp_path / f"b.{ending}", Scan(image))
    same(read_scan(fn), a, image)
    assert [p.name for p in tmp_path.iterdir() if p.name[0] == "."] == []


@pytest.mark.parametrize("kind", [dict(), dict(along=TURNED), dict(slope=.5, intercept=-1000), dict(names="IM{:05}")])
def test_a_dicom_series_comes_back_in_hounsfield_units(tmp_path, kind):
    a, along = body(), kind.get("along", (1, 0, 0, 0, 1, 0))
    image = as_itk(a, np.c_[along[:3], along[3:], [0, 0, 1.]].ravel())
    same(read_scan(dicom(tmp_path / "d", a, **kind)), a, image)


def test_affine_and_orientation_are_nibabels(tmp_path):
    a = body()
    a[4, 15, 6] = 2000
    sitk.WriteImage(as_itk(a, (0, 0, 1, -.8, .6, 0, -.6, -.8, 0)), tmp_path / "a.nii.gz")
    scan, theirs = read_scan(tmp_path / "a.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert np.allclose(scan.affine, theirs.affine, atol=1e-4)
    assert tuple(scan.orientation) == nib.aff2axcodes(theirs.affine)
    turned = scan.oriented()
    assert turned.orientation == "LPS" and np.array_equal(scan.on_grid(turned.array), scan.array)
    # the same voxel is at the same millimetres
    k, j, i = np.unravel_index(turned.array.argmax(), turned.array.shape)
    z, y, x = np.unravel_index(scan.array.argmax(), scan.array.shape)
    assert np.allclose(turned.affine @ [i, j, k, 1], scan.affine @ [x, y, z, 1], atol=1e-4)


def half(fn): fn.write_bytes(fn.read_bytes()[:fn.stat().st_size // 2])


def with_bytes(fn, at, new):
    raw = bytearray(fn.read_bytes())
    raw[at:at + len(new)] = new
    fn.write_bytes(bytes(raw))


def of_file(ending, spoil):
    def make(d):
        sitk.WriteImage(as_itk(body()), d / f"scan.{ending}")
        spoil(d / f"scan.{ending}")
        return d / f"scan.{ending}"
    return make


def of_series(spoil):
    def make(d):
        spoil(dicom(d / "series", body(), uid="1.2.9"))
        return d / "series"
    return make


def saved(image, name="scan.nii.gz"):
    def make(d):
        sitk.WriteImage(image(), d / name)
        return d / name
    return make


def another_size(d):
    s = pydicom.dcmread(d / "002.dcm")
    s.Rows, s.PixelData = 18, s.PixelData[:18 * 24 * 2]
    s.save_as(d / "002.dcm")


def another_spacing(d):
    s = pydicom.dcmread(d / "002.dcm")
    s.PixelSpacing = [.9, .9]
    s.save_as(d / "002.dcm")


def moved(mm):
    def spoil(d):
        s = pydicom.dcmread(d / "002.dcm")
        s.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + SPACING[2] * 3 + mm]
        s.save_as(d / "002.dcm")
    return spoil


DAMAGED = {
    "nothing there": (lambda d: d / "scan.nii.gz", "scan.nii.gz: no such file"),
    "an image": (lambda d: (d / "scan.nii").write_text("hello") and d / "scan.nii", "scan.nii: cannot be read as a scan"),
    "an empty file": (of_file("nii.gz", lambda f: f.write_bytes(b"")), "scan.nii.gz: cannot be read"),
    "NIfTI cut short": (of_file("nii", half), r"scan.nii: cannot be read as a scan \(.* bytes where there should be"),
    "packed NIfTI cut short": (of_file("nii.gz", half), "scan.nii.gz: .*end-of-stream"),
    "packed NIfTI with a bad byte": (of_file("nii.gz", lambda f: with_bytes(f, 3000, b"\0" * 8)), "scan.nii.gz: cannot be read"),
    "packed NIfTI with many bad bytes": (of_file("nii.gz", lambda f: with_bytes(f, 1000, b"\xff" * 900)), "scan.nii.gz: cannot be read"),
    "MetaImage cut short": (of_file("mha", half), "scan.mha: cannot be read"),
    "MetaImage without voxels": (of_file("mhd", lambda f: os.remove(f.with_suffix(".raw"))), "scan.mhd: .*the file with the voxels"),
    "MetaImage with few voxels": (of_file("mhd", lambda f: half(f.with_suffix(".raw"))), "scan.mhd: .*the file with the voxels"),
    "NRRD cut short": (of_file("nrrd", half), "scan.nrrd: cannot be read"),
    "several times": (saved(lambda: sitk.JoinSeries([as_itk(body())] * 2)), "24x20x6x2 with 1 numbers a voxel"),
    "colours": (saved(lambda: sitk.Compose([as_itk(body())] * 3)), "with 3 numbers a voxel"),
    "one slice": (lambda d: dicom(d / "series", body()) / "002.dcm", "002.dcm: one slice of a scan; give the folder"),
    "no slices": (lambda d: (d / "none").mkdir() or d / "none", "none: no scan in it"),
    "a slice is missing": (of_series(lambda d: os.remove(d / "002.dcm")), "003.dcm at 35.0 mm and 001.dcm at 40.0 mm: 5.0 mm apart"),
    "a slice is damaged": (of_series(lambda d: half(d / "002.dcm")), "002.dcm: cannot be read as a DICOM slice; 5 others"),
    "the last slice is damaged": (of_series(lambda d: with_bytes(d / "005.dcm", 128, b"none")), "005.dcm: cannot be read"),
    "two slices in one place": (of_series(lambda d: moved(-2.5)(d)), "two slices in one place"),
    "uneven slices": (of_series(moved(1)), "3.5 mm apart, others 2.5 mm"),
    "two series": (of_series(lambda d: dicom(d, body(), names="b{}.dcm")), "slices of 2 series .*and 5 more.*folder of its own"),
    "slices of two sizes": (of_series(another_size), "002.dcm: size, spacing or orientation differ"),
    "slices of two spacings": (of_series(another_spacing), "002.dcm: size, spacing or orientation differ"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(tmp_path, kind):
    make, message = DAMAGED[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=message): read_scan(make(tmp_path))


def label_like(scan): return (scan.array > 300).astype(np.uint8)


def shifted(image): image.SetOrigin([v + 3 for v in ORIGIN]); return image


LABELS = {
    "another shape": (lambda y: as_itk(y[:-1]), r"label.nii.gz: \(5, 20, 24\) voxels, but \(6, 20, 24\) in its scan.*resample"),
    "another place": (lambda y: shifted(as_itk(y)), "label.nii.gz: lies 3 mm beside its scan .*CopyInformation"),
    "mirrored": (lambda y: as_itk(y, (-1, 0, 0, 0, 1, 0, 0, 0, 1)), "label.nii.gz: lies .* mm beside"),
    "fractions": (lambda y: as_itk(y * np.float32(.5)), "label.nii.gz: labels such as 0.5 are not whole"),
    "unknown numbers": (lambda y: as_itk(y * 7), "label.nii.gz: values .7. .*not among the codes"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_label_that_does_not_fit_is_named(tmp_path, kind):
    make, message = LABELS[kind]
    scan = Scan(as_itk(body()))
    save_scan(body(), tmp_path / "scan.nii.gz", scan)
    sitk.WriteImage(make(label_like(scan)), tmp_path / "label.nii.gz")
    ds = VolumeDataset([tmp_path / "scan.nii.gz"], [tmp_path / "label.nii.gz"], ["none", "dense"])
    with pytest.raises(ValueError, match=message): ds[0]


def test_what_has_no_window_is_named(tmp_path):
    with pytest.raises(ValueError, match="a.nii: no window from 5 to 5"): windowed(np.full((2, 3, 4), 5), path="a.nii")
    with pytest.raises(ValueError, match="holds NaN"): windowed(np.full((2, 3, 4), np.nan))
    with pytest.raises(ValueError, match="the lower one first"): VolumeDataset([], None, ["a", "b"], range=(400, -1000))
    with pytest.raises(ValueError, match="axes are some of 0, 1 and 2"): VolumeDataset([], None, ["a", "b"], axes=3)


def folder(d, n=6, shape=(6, 40, 48)):
    "Scans with a bright block in them; every second lies another way in its file"
    for sub in ("images", "labels"): (d / sub).mkdir(parents=True)
    for v in range(n):
        a, y = body(shape, v) // 4, np.zeros(shape, np.uint8)
        y[2:5, 8 + v:24 + v, 10:30] = 1
        a[y > 0] += 700
        for sub, o in dict(images=a, labels=y).items():
            image = as_itk(o) if v % 2 else sitk.DICOMOrient(as_itk(o), "PIR")
            sitk.WriteImage(image, d / sub / f"p{v // 2}_{v}.nii.gz")
    return d


def test_slices_neighbours_and_edges(tmp_path):
    ds, split = find_volumes(folder(tmp_path), k=2, range=(-1000, 1000), axes=(0, 2))
    assert split is None and len(ds) == 6 * (6 + 48) and ds.classes == ["background", "foreground"]
    scan = read_scan(ds.images[0]).oriented()
    levels = windowed(scan.array, (-1000, 1000))
    x, y = ds[1]
    assert x.shape == (5, 40, 48) and np.array_equal(x, levels[[0, 0, 1, 2, 3]]) and np.array_equal(y, read_label(ds.masks[0])[1])
    x, y = ds[6 + 47]
    assert x.shape == (5, 6, 40) and np.array_equal(x, levels[:, :, [45, 46, 47, 47, 47]].transpose(2, 0, 1))
    assert ds.file_sizes[0] == (40, 48) and ds.file_sizes[-1] == (6, 40)
    # stored another way, they are the same
    other = ds.images.index(tmp_path / "images/p0_1.nii.gz")
    assert read_scan(ds.images[other]).orientation == "LPS" and read_scan(ds.images[0]).orientation == "PIR"
    assert ds.file_sizes[other] == (40, 48)


def test_a_patient_is_on_one_side(tmp_path):
    kwargs = dict(k=1, range=(-1000, 1000), patient=lambda p: p.name.split("_")[0])
    ds, _ = find_volumes(folder(tmp_path), **kwargs)
    dls = SegDataLoaders.from_dataset(ds, crop=32, bs=4, device="cpu")
    sides = [set(d.ds.patients) for d in (dls.train_ds, dls.valid_ds)]
    assert sides[0] | sides[1] == {"p0", "p1", "p2"} and not sides[0] & sides[1]
    x, y = dls.train.one_batch()
    assert x.shape == (4, 3, 32, 32) and 0 <= x.min() and x.max() <= 1
    with pytest.raises(ValueError, match="slices of . patients on both sides .*Split by patient"):
        SegDataLoaders.from_dataset(ds, FoldSplitter(0, 5), crop=32, device="cpu")
    (tmp_path / "valid.txt").write_text("p1_2.nii.gz\np1_3\n")
    ds, split = find_volumes(tmp_path, **kwargs)
    assert {ds.patients[i] for i in split(ds.images)[1]} == {"p1"}


def test_a_folder_of_series_is_a_scan(tmp_path):
    a = body((6, 40, 48))
    for p in "ab":
        dicom(tmp_path / "images" / p, a)
        (tmp_path / "labels").mkdir(exist_ok=True)
        sitk.WriteImage(as_itk((a > 300).astype(np.uint8)), tmp_path / f"labels/{p}.nii.gz")
    ds, _ = find_volumes(tmp_path)
    assert [p.name for p in ds.images[::6]] == ["a", "b"] and len(ds) == 12
    assert np.array_equal(ds[3][1], a[3] > 300)


def test_from_folder_to_prediction(tmp_path):
    """Check, train and predict from the command line; what is written lies on each scan's own grid"""
    d = folder(tmp_path / "set", n=8)
    (d / "valid.txt").write_text("p3_6\np3_7\n")
    (d / "codes.txt").write_text("air\nblock\n")
    run = segnb("check", d)
    assert run.returncode == 0 and "volumes     8 in images" in run.stdout and "2 volumes" in run.stdout, run.stdout
    run = segnb("train", d, "--k", 1, "--range", -1000, 1000, "--epochs", 4, "--bs", 4, "--encoder", "tf_efficientnet_lite0",
                "--out", tmp_path / "m.safetensors")
    assert run.returncode == 0 and "resized to 64x96" in run.stdout, run.stderr + run.stdout
    assert "Dice of each volume by itself" in run.stdout and float(run.stdout.rsplit("mean IoU", 1)[1].split()[0]) > .7, run.stdout
    dicom(tmp_path / "series.1", read_scan(d / "images/p3_7.nii.gz").array)
    run = segnb("predict", tmp_path / "m.safetensors", d / "images/p3_6.nii.gz", tmp_path / "series.1", "--out", tmp_path / "out")
    assert run.returncode == 0 and "2 class maps" in run.stdout, run.stderr
    for name, fn in {"p3_6": d / "images/p3_6.nii.gz", "series.1": d / "images/p3_7.nii.gz"}.items():
        got, scan = nib.load(tmp_path / f"out/{name}.nii.gz"), nib.load(fn)
        assert got.shape == scan.shape and np.allclose(got.affine, scan.affine, atol=1e-4)
        truth = np.asarray(nib.load(d / "labels" / fn.name).dataobj)
        assert 2 * (truth * np.asarray(got.dataobj)).sum() / (truth.sum() + np.asarray(got.dataobj).sum()) > .8
    run = segnb("predict", tmp_path / "m.safetensors", d / "images", "--out", tmp_path / "out")
    assert run.returncode == 2 and "p3_6.nii.gz is already there" in run.stderr
    assert "--channels: is for images" in segnb("train", d, "--channels", 3, "--out", tmp_path / "n.safetensors").stderr
    half(d / "images/p0_0.nii.gz")
    sitk.WriteImage(as_itk(np.full((6, 40, 48), np.nan, np.float32)), d / "images/none.mha")
    run = segnb("predict", tmp_path / "m.safetensors", d / "images", "--out", tmp_path / "out", "--overwrite", "--tta", "flip")
    assert run.returncode == 1 and "7 class maps" in run.stdout, run.stdout
    assert "p0_0.nii.gz: cannot be read" in run.stderr and "none.mha: holds NaN" in run.stderr
    run = segnb("check", d)
    assert run.returncode == 1 and "unreadable image" in run.stdout
    assert "are for images" in segnb("predict", tmp_path / "m.safetensors", d / "images", "--scale", 2).stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A network with random weights in its decoder, of slices across all three axes"
    d = folder(tmp_path_factory.mktemp("volumes"))
    ds, _ = find_volumes(d, k=1, range=(-1000, 1000), axes=(0, 1, 2), size=(48, 64))
    learn = seg_learner(SegDataLoaders.from_dataset(ds, crop=32, bs=4, device="cpu"), precision="fp32")
    return ds, learn.seg_model()


def test_training_and_prediction_read_alike(trained, tmp_path):
    """What the loader gives the network is what a model from its file gives it for the same scan"""
    ds, model = trained
    model = load_model(model.save(tmp_path / "m.safetensors"), "cpu")
    model.half = False
    assert model.volume == dict(k=1, axes=[0, 1, 2]) and model.channels == 3
    scan = read_scan(ds.images[0])
    of = [[i for i, (ax, _) in enumerate(ds.slices) if ax == a and ds.images[i] == ds.images[0]] for a in range(3)]
    p = []
    for a in range(3):
        x = torch.stack([ds[i][0].as_subclass(torch.Tensor) for i in of[a]]) / 255
        probs = torch.nn.functional.interpolate(model.probs(x), ds.file_sizes[of[a][0]], mode="bilinear")
        p.append(probs.movedim(0, a + 1))                       # classes first, then the axes of the volume
        assert (model.predict_oriented(scan, a) == p[a].argmax(0).numpy()).mean() > .999
    mean = sum(p) / 3
    sure = (mean[0] - mean[1]).abs() > .01
    assert (model.predict_oriented(scan) == mean.argmax(0).numpy())[sure].all() and sure.float().mean() > .5
    assert np.array_equal(model.predict_volume(scan), scan.on_grid(model.predict_oriented(scan)))


def test_views_and_models_for_images(trained, model_file):
    ds, model = trained
    scan = read_scan(ds.images[1])
    mirrored = sitk.GetImageFromArray(np.ascontiguousarray(scan.oriented().array[:, :, ::-1]))
    mirrored.CopyInformation(scan.oriented().image)
    t = TTA(model, "flip").seg_model()
    one, other = (t.predict_oriented(o, 0) for o in (scan, Scan(mirrored)))
    assert (one == other[:, :, ::-1]).mean() > .99
    with pytest.raises(ValueError, match="trained on images"): load_model(model_file).predict_volume(scan)
    assert load_model(model_file).volume is None


def test_a_chosen_share_of_slices_with_findings(tmp_path):
    ds, _ = find_volumes(folder(tmp_path), range=(-1000, 1000))
    dls = SegDataLoaders.from_dataset(ds, crop=32, bs=4, device="cpu", balance=.9)
    holds = dls.train_ds.counts[:, 1] > 0
    assert .3 < holds.mean() < .7 and abs(np.asarray(dls.train.weights)[holds].sum() - .9) < 1e-9
    with pytest.raises(ValueError, match="balance=2"): SegDataLoaders.from_dataset(ds, crop=32, device="cpu", balance=2)


def test_distances_are_those_of_simpleitk():
    z, y, x = np.mgrid[:20, :40, :40]
    ball = lambda cz, cy, cx, r: ((z - cz) * 2) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < r * r
    a, b = ball(9, 18, 18, 9), ball(11, 20, 23, 8)
    images = [sitk.GetImageFromArray(o.astype(np.uint8)) for o in (a, b)]
    for o in images: o.SetSpacing((1, 1, 2))
    theirs, overlap = sitk.HausdorffDistanceImageFilter(), sitk.LabelOverlapMeasuresImageFilter()
    theirs.Execute(*images), overlap.Execute(*images)
    assert abs(surface_distances(a, b, (2, 1, 1)).max() - theirs.GetHausdorffDistance()) < 1e-5
    row = volume_scores(b.astype(np.uint8), a.astype(np.uint8), (2, 1, 1), ["none", "ball"]).loc["ball"]
    assert abs(row.Dice - overlap.GetDiceCoefficient()) < 1e-9 and 0 < row["surface distance"] < row["Hausdorff 95"] < theirs.GetHausdorffDistance()


def test_results_do_not_replace_scans(tmp_path):
    from segnb.model_file import SegModel
    from segnb.masks import Codes
    from segnb.unet import UNet
    sitk.WriteImage(as_itk(body()), tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()
    m = SegModel(UNet(1, 2, width=4, depth=1, pad=True, norm=True), Codes(["a", "b"]), channels=1, range=(-1000, 400), volume=dict(k=0, axes=[0]))
    with pytest.raises(ValueError, match="holds the scans themselves"): m.predict_scans(tmp_path, tmp_path, overwrite=True)
    (tmp_path / "b").mkdir()
    sitk.WriteImage(as_itk(body()), tmp_path / "b/a.nii.gz")
    with pytest.raises(ValueError, match="several files are called a"):
        m.predict_scans([tmp_path / "a.nii.gz", tmp_path / "b/a.nii.gz"], tmp_path / "out")
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    with pytest.raises(ValueError, match="two files"): save_scan(body(), tmp_path / "x.mhd", read_scan(tmp_path / "a.nii.gz"))


def test_a_tilted_scanner(tmp_path):
    d = dicom(tmp_path / "d", body())
    for f in d.iterdir():
        s = pydicom.dcmread(f)
        x, y, z = s.ImagePositionPatient
        s.ImagePositionPatient = [x, y+.5*(z-ORIGIN[2]), z]
        s.save_as(f)
    with pytest.raises(ValueError, match="shifted sideways"): read_scan(d)
