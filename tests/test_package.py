"""What a user meets: the package's metadata, README's lines, notebooks as chapters."""
import json
import re
from configparser import ConfigParser
from importlib.metadata import metadata, requires

import pytest

from conftest import root, segnb

notebooks = sorted((root / "nbs").glob("*.ipynb"))
chapters = [n for n in notebooks if n.name[0].isdigit()]


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
    assert "## Questions" in ends and "## Further" in ends
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
    assert outputs and not any(o["output_type"] == "error" for o in outputs), "saved with outputs, none of them an error"


def test_no_notebook_is_too_heavy():
    assert all(n.stat().st_size < 2.5e6 for n in notebooks)
