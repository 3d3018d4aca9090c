"""Build the docs site into _docs: with Quarto where it is installed, else with smalldocs from the same _quarto.yml."""
import shutil, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def build():
    "Returns the number of pages"
    bin = Path(sys.executable).parent
    if shutil.which("quarto"):
        subprocess.run([bin / "nbdev-docs"], cwd=root, check=True)
    else:
        subprocess.run([bin / "nbdev-proc-nbs", "--n-workers", "2"], cwd=root, check=True)
        shutil.rmtree(root / "_proc/_docs", ignore_errors=True)
        subprocess.run([bin / "smalldocs", "render", "--quiet", "_proc"], cwd=root, check=True)
        shutil.rmtree(root / "_docs", ignore_errors=True)
        shutil.move(root / "_proc/_docs", root / "_docs")
    pages = [p for p in (root / "_docs").glob("*.html") if p.stem not in ("404", "search")]
    notebooks = [p for p in (root / "nbs").glob("*.ipynb")]
    missing = {page_of(n) for n in notebooks} - {p.name for p in pages}
    if missing: sys.exit(f"docs: pages are missing: {', '.join(sorted(missing))}")
    return len(pages)


def page_of(notebook):
    "00_streets.ipynb becomes streets.html"
    from nbdev.config import nbpath2html
    return nbpath2html(notebook).name


if __name__ == "__main__": print(f"docs: {build()} pages in {root / '_docs'}")
