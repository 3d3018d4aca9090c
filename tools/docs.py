"""Build the docs site into _docs: with Quarto where it is installed, else with smalldocs from the same _quarto.yml."""
import json, re, shutil, subprocess, sys
from pathlib import Path

from common import notebooks_in, root

bin = Path(sys.executable).parent
proc = root / "_proc"


def build():
    "Returns the number of pages"
    with_source()
    if shutil.which("quarto"): subprocess.run([bin / "nbdev-docs", "--path", "_nbs"], cwd=root, check=True)
    else: build_with_smalldocs()
    pages = {p.relative_to(root / "_docs").as_posix() for p in (root / "_docs").rglob("*.html")}
    missing = {page_of(n.relative_to(root / "nbs")) for n in notebooks_in(root / "nbs")} - pages
    if missing: sys.exit(f"docs: pages are missing: {', '.join(sorted(missing))}")
    broken = [f"{page} -> {link}" for page in sorted(pages) for link in dead_links(root / "_docs" / page)]
    if broken: sys.exit("docs: links that lead nowhere:\n" + "\n".join(broken))
    return len(pages)


def dead_links(page):
    "Links of a page to files of the site that are not there"
    html = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r'(?:href|src)="([^"#?]+)', html):
        if re.match(r"[a-z]+:|//", link): continue
        target = root / "_docs" / link.lstrip("/") if link.startswith("/") else page.parent / link
        if not target.exists(): yield link


def with_source():
    """A copy of nbs/ in _nbs/ whose exported cells are shown.

    nbdev's pages have only the signatures of what `export` exports, and the source too for `exports`.
    These pages are a course, so its readers see the code."""
    shutil.rmtree(root / "_nbs", ignore_errors=True)
    shutil.copytree(root / "nbs", root / "_nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for page in notebooks_in(root / "_nbs"):
        nb = json.loads(page.read_text(encoding="utf-8"))
        for cell in nb["cells"]:
            src = "".join(cell["source"])
            if re.match(r"#\| exporti?\n", src) and re.search(r"^(def|class|@)", src, re.M):
                cell["source"] = re.sub(r"^#\| exporti?\n", "#| exports\n", src)
        page.write_text(json.dumps(nb), encoding="utf-8")


def page_of(notebook):
    "01_dataset.ipynb becomes dataset.html, as nbdev names its pages; folders stay"
    return notebook.with_name(re.sub(r"^\d+_", "", notebook.stem) + ".html").as_posix()


def build_with_smalldocs():
    shutil.rmtree(proc, ignore_errors=True)
    # not the command nbdev-proc-nbs: that one tries to install Quarto first
    code = "if __name__ == '__main__': from nbdev.serve import proc_nbs; proc_nbs('_nbs', n_workers=2)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=True)
    if (root / "nbs/images").is_dir(): shutil.copytree(root / "nbs/images", proc / "images", dirs_exist_ok=True)
    for page in [*notebooks_in(proc), proc / "_quarto.yml"]: adapt(page)
    subprocess.run([bin / "smalldocs", "render", "--quiet", "--strict", "_proc"], cwd=root, check=True)
    shutil.rmtree(root / "_docs", ignore_errors=True)
    shutil.move(proc / "_docs", root / "_docs")


def adapt(page):
    """What Quarto does by itself: pages without their numbers, links within the site relative.

    Links to source lines go only where the repository has an address on the web."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"\b\d\d_(\w+\.ipynb)", r"\1", text)
    text = re.sub(r'\s*"output-file: \w+\.html\\n",', "", text)
    up = "../" * len(page.relative_to(proc).parent.parts)
    text = re.sub(r"\]\(/([\w/]+\.html)", rf"]({up}\1", text)
    text = re.sub(r"\[source\]\(/blob/[^)]*\)\{[^}]*\}", "", text)
    # files beside nbs/ are not pages
    text = re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?:[A-Z]+(?:\.md)?|experiments[\w/.]*|tests[\w/.]*)\)", r"\1", text)
    target = page.with_name(re.sub(r"^\d+_", "", page.name))
    page.unlink()
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__": print(f"docs: {build()} pages in {root / '_docs'}")
