"""Fills from settings.ini, where they are stated once, the fields that pyproject.toml lists as dynamic."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]


def lines(name): return [line.strip() for line in settings[name].splitlines() if line.strip()]


tables = sorted(p for kind in ("csv", "json") for p in here.glob(f"experiments/*/*.{kind}"))     # what the chapters quote: `segnb.core.evidence` finds them

setup(
    data_files=[(f"share/segnb/experiments/{p.parent.name}", [p.relative_to(here).as_posix()]) for p in tables],
    version=re.search(r'^__version__ = "(.+)"', (here / "segnb/__init__.py").read_text(), re.M)[1],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    keywords=settings["keywords"].split(),
    classifiers=lines("classifiers"),
    install_requires=lines("requirements"),
    extras_require={key.removeprefix("extras_"): lines(key) for key in settings if key.startswith("extras_")},
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["segnb = segnb._modidx:d"]},
)
