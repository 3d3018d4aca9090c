"""What the tools share."""
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def notebooks_in(folder): return sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
