"""Take console progress bars out of saved outputs: of each line keep what stood there last.

Outputs are saved without a notebook front end, where fastai and download libraries draw their bars as text."""
import json, re, sys
from pathlib import Path

from common import notebooks_in, root


def last_state(text):
    lines = [line.split("\r")[-1].replace("█", "").rstrip() for line in text.split("\n")]
    return re.sub(r"\n{2,}", "\n", "\n".join(line for line in lines if not re.fullmatch(r"\s*(\|.*\|.*)?", line) or not line)).lstrip("\n")


def tidy(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        for out in cell.get("outputs", []):
            if out["output_type"] == "stream": out["text"] = last_state("".join(out["text"])).splitlines(True)
        if "outputs" in cell: cell["outputs"] = [o for o in cell["outputs"] if o["output_type"] != "stream" or "".join(o["text"]).strip()]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in [Path(a) for a in sys.argv[1:]] or notebooks_in(root / "nbs"): tidy(path)
