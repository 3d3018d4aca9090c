"""Damaged, foreign and unusual files: a clear error or the right answer, never a wrong one."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from segnb.all import SegDataLoaders, SegDataset, find_pairs, load_model, seg_learner
from segnb.core import VOID, read_image
from segnb.frames import Frames

FILES = Path(__file__).parent/"files"


def test_a_model_file_altered_anywhere_is_refused_or_still_a_model(model_file, tmp_path):
    good, rng = model_file.read_bytes(), np.random.default_rng(0)
    header = int.from_bytes(good[:8], "little")
    for k in range(60):
        bad = bytearray(good)
        at = int(rng.integers(0, 8 + header))       # within length and header: that is where structure is
        bad[at] ^= int(rng.integers(1, 256))
        (tmp_path / "bad.safetensors").write_bytes(bad)
        try: model = load_model(tmp_path / "bad.safetensors", device="cpu")
        except ValueError as e: assert "bad.safetensors" in str(e)
        else: assert model.probs(torch.rand(1, 3, 32, 32)).shape[0] == 1      # the changed byte was in a name or a version


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, .5, .999])
def test_a_truncated_model_file(model_file, tmp_path, keep):
    data = model_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="cut.safetensors"): load_model(tmp_path / "cut.safetensors")


def test_a_pickle_is_not_opened(tmp_path):
    import os, pickle
    class Bomb:
        def __reduce__(self): return os.mkdir, (str(tmp_path / "ran"),)
    for name in ("evil.pth", "evil.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ValueError): load_model(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_the_header_says_what_the_model_is(model_file):
    with safe_open(model_file, "pt") as f: head = json.loads(f.metadata()["segnb"])
    assert head["kind"] == "EncoderUNet" and head["codes"][-1] == "Void" and head["size"] == [96, 128] and "torch" in head["versions"]


def test_saving_does_not_harm_the_old_file_when_it_fails(model_file, tmp_path, monkeypatch):
    import segnb.core as L
    model, file = load_model(model_file), tmp_path / "keep.safetensors"
    model.save(file)
    before = file.read_bytes()
    def full(*a, **k): raise OSError(28, "No space left on device")
    monkeypatch.setattr(L, "save_file", full)
    with pytest.raises(OSError): model.save(file)
    assert file.read_bytes() == before and [o.name for o in tmp_path.iterdir()] == ["keep.safetensors"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_images_in_every_mode(small_set, tmp_path, mode):
    rgb = Image.open(next((small_set / "images").glob("*.png")))
    if mode == "I;16": im = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    else: im = rgb.convert(mode)
    fn = tmp_path / ("x.tif" if mode in ("CMYK", "YCbCr", "F") else "x.png")
    im.save(fn, **({"compression": "tiff_lzw"} if mode == "YCbCr" else {}))  # Pillow 12 cannot read the plain YCbCr TIFF that it writes
    got = np.asarray(read_image(fn)).astype(int)
    assert got.shape == (96, 128, 3)
    if mode not in ("1", "P", "F"): assert abs(got - np.asarray(rgb.convert("L" if mode in ("L", "LA", "I;16") else "RGB").convert("RGB")).astype(int)).mean() < 3


def copy_set(src, dst): return shutil.copytree(src, dst)


def test_training_images_that_cannot_be_read_are_named(small_set, tmp_path):
    path = copy_set(small_set, tmp_path / "d")
    victim = sorted((path / "images").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(ValueError, match=victim.name): SegDataLoaders.from_path(path, device="cpu")


def test_sizes_that_differ_are_named(small_set, tmp_path):
    path = copy_set(small_set, tmp_path / "d")
    victim = sorted((path / "labels").iterdir())[2]
    Image.open(victim).resize((64, 48), Image.NEAREST).save(victim)
    with pytest.raises(ValueError, match=f"{victim.name} is 64x48"): SegDataLoaders.from_path(path, device="cpu")


def test_values_outside_the_codes_are_named(small_set, tmp_path):
    path = copy_set(small_set, tmp_path / "d")
    victim = sorted((path / "labels").iterdir())[5]
    m = np.array(Image.open(victim)); m[0, 0] = 77
    Image.fromarray(m).save(victim)
    with pytest.raises(ValueError, match=rf"{victim.name}: values \[77\] \(1 pixels\)"): SegDataLoaders.from_path(path, device="cpu")


def test_palette_masks_train_as_index_masks(small_set, tmp_path):
    path = copy_set(small_set, tmp_path / "d")
    for f in (path / "labels").iterdir():
        im = Image.open(f); im.putpalette(list(np.random.default_rng(1).integers(0, 256, 768))); im.save(f)
    (a, _), (b, _) = find_pairs(small_set), find_pairs(path)
    assert all(torch.equal(a[i][1], b[i][1]) for i in range(len(a)))


def test_frames_of_different_sizes_train_and_score(small_set, tmp_path):
    path = copy_set(small_set, tmp_path / "d")
    for k, f in enumerate(sorted((path / "images").iterdir())):
        if k % 3 == 0:
            for g in (f, path / "labels" / f"{f.stem}_P.png"): Image.open(g).resize((100, 70), Image.NEAREST).save(g)
    dls = SegDataLoaders.from_path(path, crop=(64, 64), bs=4, device="cpu")
    learn = seg_learner(dls)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    assert learn.scores().loc["all", "pixels"] == sum(int((y != VOID).sum()) for _, y in (dls.valid_ds[i] for i in range(len(dls.valid_ds))))


def test_hard_names(small_set, tmp_path):
    path = tmp_path / "späte Bilder [1]"
    copy_set(small_set, path)
    (path / "valid.txt").unlink()
    for f in list((path / "images").iterdir())[:2]:
        g = path / "labels" / f"{f.stem}_P.png"
        f.rename(f.with_name(f"ü ö [x] {f.name}")); g.rename(g.with_name(f"ü ö [x] {f.stem}_P.png"))
    ds, _ = find_pairs(path)
    assert len(ds) == 24 and ds[23][0].shape == (3, 96, 128)


def test_images_without_masks(small_set):
    ds = SegDataset(sorted((small_set / "images").iterdir()), None, small_set / "codes.txt")
    assert ds[0][1] is None and not Frames(ds).has_masks


def test_an_encoder_without_weights_warns_and_works():
    from segnb.encoders import encoder
    with pytest.warns(UserWarning, match="No pretrained weights for resnet18"): enc = encoder("resnet18")
    assert enc(torch.rand(1, 3, 64, 64))[-1].shape == (1, 512, 2, 2)
    with pytest.raises(ValueError, match="no model 'resnet81'"): encoder("resnet81")


def test_binary_masks_come_back_as_they_were(tmp_path):
    "0/255 masks: found without codes, trained as two classes, saved as 0 and 255 again"
    for d in ("images", "masks"): (tmp_path / d).mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 40, 4), dtype=np.uint8)).save(tmp_path / f"images/{i}.png")
        Image.fromarray((rng.random((40, 40)) < .5).astype(np.uint8) * 255).save(tmp_path / f"masks/{i}.png")
    ds, split = find_pairs(tmp_path)
    assert ds.classes == ["background", "foreground"] and split is None
    from segnb.all import EncoderUNet, SegModel
    model = SegModel(EncoderUNet(2, pretrained=False), ds.codes)
    done, failed = model.predict_folder(tmp_path / "images", tmp_path / "out")
    assert len(done) == 4 and not failed and set(np.unique(np.array(Image.open(done[0])))) <= {0, 255}


@pytest.mark.parametrize("name", ["encoder_unet", "unet"])
def test_files_of_older_versions_load_and_predict_the_same(name):
    "Written by segnb 0.1.0, before batch norm was folded and skips were laid beside without doubling"
    model = load_model(FILES/f"{name}_format1.safetensors", device="cpu")
    model.half = False
    assert model.classes == ["Sky", "Road", "Car"] and model.size == (48, 64)
    pic = (np.arange(48*64*3).reshape(48, 64, 3)*7 % 256).astype(np.uint8)
    probs = model.probs(torch.from_numpy(pic).permute(2, 0, 1)[None].float()/255)[0, :, ::16, ::16]
    expected = torch.tensor(json.loads((FILES/"format1_probs.json").read_text())[name])
    assert (probs - expected).abs().max() < 1e-4


@pytest.fixture(scope="module")
def onnx_file(model_file, tmp_path_factory):
    from segnb.export import export_onnx
    return export_onnx(load_model(model_file), tmp_path_factory.mktemp("onnx")/"m.onnx")


RUNTIMES = ("openvino", "onnxruntime")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_onnx_in_many_threads_answers_each_for_its_own_image(onnx_file, runtime):
    from concurrent.futures import ThreadPoolExecutor
    from segnb.model_file import load_onnx
    model, xs = load_onnx(onnx_file, runtime, half=False), torch.rand(24, 3, 64, 96)
    alone = [model.probs(x[None]) for x in xs]
    with ThreadPoolExecutor(6) as pool: together = list(pool.map(lambda x: model.probs(x[None]), xs))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, together))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_onnx_models_can_be_copied_and_sent(onnx_file, runtime):
    import copy
    import pickle
    from segnb.model_file import load_onnx
    model, x = load_onnx(onnx_file, runtime, half=False), torch.rand(1, 3, 40, 50)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))): assert torch.equal(other.probs(x), model.probs(x))


def test_onnx_goes_where_a_model_file_goes(onnx_file, model_file, tmp_path):
    from segnb.all import Ensemble, TTA
    from segnb.export import export_onnx
    x = torch.rand(1, 3, 64, 96)
    assert load_model(onnx_file).classes == load_model(model_file).classes
    for wrap in (TTA, lambda m: Ensemble(m, m)): assert (wrap(onnx_file)(x)-wrap(model_file)(x)).abs().max() < .02
    with pytest.raises(ValueError, match="OnnxNet"): export_onnx(load_model(onnx_file), tmp_path/"again.onnx")


@pytest.mark.parametrize("meta", ["no json", "[1]", '{"format": 2}', '{"format": 1, "codes": []}'])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_onnx_with_damaged_metadata_is_refused_by_name(onnx_file, tmp_path, runtime, meta):
    import onnx
    from segnb.model_file import load_onnx
    proto = onnx.load(onnx_file)
    onnx.helper.set_model_props(proto, {"segnb": meta})
    onnx.save(proto, tmp_path/"bad.onnx")
    with pytest.raises(ValueError, match="bad.onnx: "): load_onnx(tmp_path/"bad.onnx", runtime)


def test_onnx_keeps_the_temperature(model_file, tmp_path):
    from segnb.export import export_onnx
    from segnb.model_file import load_onnx
    model = load_model(model_file, "cpu")
    model.half, model.temperature = False, 2.5
    x = torch.rand(1, 3, 50, 70)
    for r in RUNTIMES: assert torch.allclose(load_onnx(export_onnx(model, tmp_path/"t.onnx"), r, half=False).probs(x), model.probs(x), atol=1e-4)


@pytest.mark.parametrize("why", ["No module named 'openvino'", "libopenvino.so: cannot open"])
def test_onnx_takes_the_runtime_that_works(monkeypatch, why):
    from segnb import export
    real, gone = export._import_quietly, {"openvino"}
    def quiet(name):
        if name in gone: raise ImportError(why)
        return real(name)
    monkeypatch.setattr(export, "_import_quietly", quiet)
    assert export.pick_runtime() == "onnxruntime"
    with pytest.raises(ImportError, match=r"openvino is needed.*segnb\[export\].*"+why): export.pick_runtime("openvino")
    gone.add("onnxruntime")
    with pytest.raises(ImportError, match="openvino or onnxruntime is needed"): export.pick_runtime()


def test_onnx_runs_without_reporting_to_anybody(model_file, tmp_path):
    "Both runtimes leave an identity in the home folder when they report, even where there is no connection"
    code = f"""if 1:
        import torch
        from segnb.export import export_onnx
        from segnb.model_file import load_onnx
        from segnb.all import load_model
        fn = export_onnx(load_model({str(model_file)!r}), {str(tmp_path/"m.onnx")!r})
        for r in ("onnxruntime", "openvino"): load_onnx(fn, r).probs(torch.rand(1, 3, 64, 64))"""
    home = tmp_path/"home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env={**env, "HOME": str(home)})
    assert [p for p in home.rglob("*") if "Microsoft" in p.parts or "intel" in p.parts] == []

    loud = "import onnxruntime, openvino; import sys; onnxruntime.InferenceSession(sys.argv[1])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", loud, tmp_path/"m.onnx"], check=True, env={**env, "HOME": str(home)})
    if not any("Microsoft" in p.parts or "intel" in p.parts for p in home.rglob("*")): pytest.skip("neither of these versions reports")
