"""Write README.md from nbs/index.ipynb: prose as it is, code in fences, text outputs below it.

nbdev's own command needs Quarto; this one needs nothing. `--check` writes nothing and fails when README.md is stale."""
import json, re, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def convert(notebook):
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        src = "".join(cell["source"])
        if cell["cell_type"] == "markdown": parts.append(from_root(src))
        elif not re.search(r"^#\|\s*(hide|export|default_exp)", src, re.M): parts += code(src, cell["outputs"])
    return "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook. -->\n\n" + "\n\n".join(parts) + "\n"


def from_root(text):
    "Links and pictures are relative to nbs/ in the notebook and to the root in README"
    return re.sub(r"(\]\()(?!https?:|#|/|\.\./)([^)]+\.(?:ipynb|jpg|png))", r"\1nbs/\2", text).replace("](../", "](")


def code(src, outputs):
    parts = [f"```python\n{src}\n```"]
    for out in outputs:
        text = "".join(out.get("text", []) or out.get("data", {}).get("text/plain", []))
        if text: parts.append("\n".join("    " + line for line in text.rstrip().splitlines()))
    return parts


if __name__ == "__main__":
    readme, text = root / "README.md", convert(root / "nbs/index.ipynb")
    if "--check" in sys.argv:
        if readme.read_text(encoding="utf-8") != text: sys.exit("README.md is not what nbs/index.ipynb gives: run `make readme`")
    else: readme.write_text(text, encoding="utf-8")
