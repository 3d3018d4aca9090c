"""What a user meets: the package's metadata, README's lines, notebooks as chapters."""
import json
import re
from configparser import ConfigParser
from importlib.metadata import metadata, requires

import pytest

from conftest import root, segnb

notebooks = sorted((root / "nbs").rglob("*.ipynb"))
chapters = sorted((root / "nbs").glob("[0-9]*.ipynb"))


def test_metadata_comes_from_settings():
    config = ConfigParser(delimiters=["="]); config.read(root / "settings.ini", encoding="utf-8")
    s = config["DEFAULT"]
    assert metadata("segnb")["Summary"] == s["description"]
    asked = {re.split(r"[<>=\[; ]", r)[0] for r in requires("segnb")}
    assert {re.split(r"[<>=\[; ]", l)[0] for k in s if k == "requirements" or k.startswith("extras_") for l in s[k].split("\n") if l.strip()} == asked


def test_import_segnb_alone_is_light():
    assert segnb(code="import sys, segnb; print('torch' in sys.modules)").stdout.strip() == "False"


def test_all_has_the_public_names():
    import segnb.all as a
    for name in "streets SegDataset SegAugment SegDataLoaders UNet EncoderUNet SegLoss ConfusionMatrix seg_metrics seg_learner load_model LRCurve".split():
        assert hasattr(a, name), name
    assert 40 <= len(a.__all__) <= 60


STAR = """
import inspect, sys
first, second = sys.argv[1:]
names = {}
for module in (first, second): exec(f"from {module} import *", names)
import fastai.vision.all as theirs, segnb.all as ours
both = {n for n in ours.__all__ if hasattr(theirs, n)}
differ = sorted(n for n in both if getattr(theirs, n) is not getattr(ours, n))
print(differ)
# what either side's lessons use works after both
dls = names["SegDataLoaders"]
assert dls is ours.SegDataLoaders and names["Normalize"] is theirs.Normalize and names["Learner"] is theirs.Learner
assert names["set_seed"] is theirs.set_seed and names["Path"] is theirs.Path and names["plt"] is theirs.plt
"""


@pytest.mark.parametrize("order", [("segnb.all", "fastai.vision.all"), ("fastai.vision.all", "segnb.all")])
def test_a_star_beside_fastais_star(order, tmp_path):
    (tmp_path / "star.py").write_text(STAR)
    import subprocess
    import sys
    got = subprocess.run([sys.executable, tmp_path / "star.py", *order], capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    assert got.stdout.strip().splitlines()[-1] == "['load_model']"


def test_load_model_takes_what_fastais_takes(small_set, tmp_path):
    import torch
    from fastai.learner import save_model
    from segnb.all import load_model
    net, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    save_model(tmp_path / "w.pth", net, opt=None, with_opt=False)
    load_model(tmp_path / "w.pth", other, None, with_opt=False)
    assert torch.equal(net.weight, other.weight)


def test_importing_segnb_leaves_fastai_as_it_is():
    code = ("from fastai.vision.all import Learner, Recorder\nbefore = set(dir(Learner)) | set(dir(Recorder))\nimport segnb.all\n"
            "print(sorted((set(dir(Learner)) | set(dir(Recorder)))-before))")
    assert segnb(code=code).stdout.strip().splitlines()[-1] == "[]"


def test_headless_parts_need_no_widgets():
    code = ("import sys; sys.modules['ipywidgets'] = None\nimport segnb.recipe, segnb.track, segnb.sweep, segnb.check, segnb.cli, "
            "segnb.export, segnb.calibrate, segnb.serve\nprint('fine')")
    got = segnb(code=code)
    assert got.stdout.strip().splitlines()[-1:] == ["fine"], got.stderr


def imports():
    "Which module of the package imports which"
    import ast
    out = {}
    for f in (root / "segnb").glob("*.py"):
        if f.stem in ("__init__", "all", "_modidx"): continue
        tree = ast.parse(f.read_text(encoding="utf-8"))
        out[f.stem] = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level and n.module}
    return out


def test_modules_import_only_from_below():
    left, floors = imports(), 0
    while left:
        bottom = [m for m, needs in left.items() if not needs & set(left)]
        assert bottom, f"a circle among {sorted(left)}"
        for m in bottom: del left[m]
        floors += 1
    assert floors <= 9


def test_lines_are_at_most_110_columns():
    for f in (root / "segnb").glob("*.py"):
        lines = f.read_text(encoding="utf-8").splitlines()
        inside = False                                          # the list of names that nbdev writes, as wide as nbdev likes
        for k, line in enumerate(lines, 1):
            if line.startswith("__all__ = ["): inside = True
            assert inside or f.stem == "_modidx" or len(line) <= 110, f"{f.name}, line {k}: {len(line)} columns"
            if inside and line.rstrip().endswith("]"): inside = False
    for f in (root / "nbs").rglob("*.ipynb"):
        for cell in json.loads(f.read_text(encoding="utf-8"))["cells"]:
            wide = [l for l in "".join(cell["source"]).splitlines() if cell["cell_type"] == "code" and len(l) > 110]
            assert not wide, f"{f.name}: {wide[0]}"


def test_the_ten_lines_of_readme_run(small_set, tmp_path, monkeypatch):
    block = next(b for b in re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S) if "seg_learner" in b)
    assert len([l for l in block.splitlines() if l.strip() and not l.startswith("from ")]) == 10
    code = block.replace("streets()", f"{str(small_set)!r}").replace("fit_one_cycle(8", "fit_one_cycle(1").replace("crop=(96,128)", "crop=(64,64)").replace("bs=16", "bs=4")
    code = code.replace("'photo.png'", repr(str(next((small_set / "images").glob("*.png")))))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "streets.safetensors").exists()


@pytest.mark.parametrize("nb", chapters, ids=lambda p: p.stem)
def test_a_chapter_is_a_chapter(nb):
    cells = json.loads(nb.read_text(encoding="utf-8"))["cells"]
    text = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    assert re.match(r"# .+\n\n> ", text[0]), "title and subtitle first"
    assert text[1].startswith("*") and "?" in text[1].split("\n")[0], "opens with a question"
    ends = "\n".join(text[-4:])
    assert ("## Exercises" in ends or "## Questions" in ends) and "## Further" in ends
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs and not any(o["output_type"] == "error" for o in outputs), "saved with outputs, none of them an error"


def test_no_notebook_is_too_heavy():
    assert all(n.stat().st_size < 2.5e6 for n in notebooks)
