"The first cell of each chapter installs the package where notebooks are hosted; here from a folder of wheels"
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
chapters = sorted((root / "nbs").glob("[0-9][0-9]_*.ipynb"))
line = r"! \[ -e /content -o -e /kaggle \] && pip install -Uqq (segnb|'segnb\[\w+\]')"


def first_code(nb): return next(c for c in json.loads(nb.read_text())["cells"] if c["cell_type"] == "code")


@pytest.mark.parametrize("nb", chapters, ids=lambda p: p.stem)
def test_each_chapter_begins_with_it(nb):
    hide, command = "".join(first_code(nb)["source"]).splitlines()
    assert hide == "#| hide" and re.fullmatch(line, command.split("  #")[0])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out), str(root)]
    subprocess.run(pip, check=True, cwd=out)
    return out


@pytest.mark.skipif(os.name == "nt", reason="the hosts run Linux")
def test_it_installs_there_and_nowhere_else(wheels, tmp_path):
    venv, hosted = tmp_path / "venv", tmp_path / "content"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    env = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels),
           "PIP_NO_DEPS": "1", "PYTHONPATH": ""}

    start = "".join(first_code(chapters[0])["source"]).splitlines()[1].split("  #")[0]

    def cell():
        "Run it as IPython does, with a folder of ours for that of the host"
        subprocess.run(["bash", "-c", start[2:].replace("/content", str(hosted))], env=env)
        return list(venv.glob("lib/python*/site-packages/segnb/all.py"))
    assert not cell()
    hosted.mkdir()
    assert cell()
    assert (venv / "share/segnb/experiments/losses/losses.csv").exists()


def test_the_wheel_holds_the_tables_that_chapters_read(wheels):
    from segnb.core import evidence
    names = zipfile.ZipFile(next(wheels.glob("segnb-*.whl"))).namelist()
    read = {s.split("'")[1] for nb in chapters for c in json.loads(nb.read_text())["cells"]
            for s in "".join(c["source"]).split("evidence(")[1:] if s.startswith("'")}
    assert len(read) > 5
    for name in read: assert evidence(name).exists() and any(n.endswith(f"share/segnb/experiments/{name}") for n in names), name
