"""Take console progress bars out of saved outputs, of each line keep what stood there last.

Warnings inside other packages go, too (they name paths of this machine), and torch's lines about its profiler. Outputs are saved without a notebook front end, where fastai and download libraries draw their bars as text."""
import json, re, sys
from pathlib import Path

from common import notebooks_in, root


def last_state(text):
    lines = [line.split("\r")[-1].replace("█", "").rstrip() for line in text.split("\n")]
    kept = [line for line in lines if not re.fullmatch(r"\s+(\|.*\|.*)?|\|.*\|.*|USDT:.*", line)]
    return re.sub(r"\n{2,}", "\n", "\n".join(kept)).lstrip("\n")


def foreign(out): return out.get("name") == "stderr" and re.search(r"site-packages/\S+: \w*Warning", "".join(out["text"]))


def tidy(path):
    nb = json.loads(path.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        for out in cell.get("outputs", []):
            if out["output_type"] == "stream": out["text"] = last_state("".join(out["text"])).splitlines(True)
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if o["output_type"] != "stream"
                               or "".join(o["text"]).strip() and not foreign(o)]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in [Path(a) for a in sys.argv[1:]] or notebooks_in(root / "nbs"): tidy(path)
