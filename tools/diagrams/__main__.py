"""Draw the diagrams of the chapters into nbs/images.

    python tools/diagrams                 # all of them
    python tools/diagrams c02_unet        # one chapter's

Each file beside this one is a chapter; its functions without parameters each draw one diagram.
"""
import importlib, inspect, sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path[:0] = [str(here), str(here.parent)]

for name in sys.argv[1:] or sorted(p.stem for p in here.glob("c*.py")):
    chapter = importlib.import_module(name)
    for key, draw in list(vars(chapter).items()):
        if inspect.isfunction(draw) and draw.__module__ == name and not inspect.signature(draw).parameters: draw()
