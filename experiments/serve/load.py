"""What `segnb serve` does under load, when it is killed, and when it is sent what is no image.

    python experiments/serve/load.py MODEL --out experiments/serve      # a few minutes

Three tables. load.csv: 40 requests from one client, 100 from 5 and 200 from 20 at once, three times: answered, refused
(503 with a time to come back), seconds, memory of the server. kill.csv: four clients correct images until SIGKILL; what
was confirmed and is not in the store. fuzz.csv: damaged and hostile files: answers by status. The server is a process of
its own; functions and files are those of tests/test_serve.py."""
import argparse, json, random, sys, tempfile, threading, time
from collections import Counter
from pathlib import Path

import numpy as np, pandas as pd

root = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(root), str(root/"tests"), str(root/"experiments")]
from common import record
from segnb.dataset import find_pairs
from segnb.feedback import Feedback
from segnb.streets import streets
import test_serve as t
import signal


def load(model, image, folder):
    "Rows of load.csv"
    server, rows = t.Server(model, folder/"load", "--threads", "1"), []
    try:
        t.crowd(server.url, 2, 10, image)                                   # warm
        for turn in range(3):
            for clients, each in ((1, 40), (5, 20), (20, 10)):
                start, before = time.perf_counter(), server.memory()
                got = t.crowd(server.url, clients, each, image)
                seconds = time.perf_counter()-start
                ok = [s for status, s, *_ in got if status == 200]
                rows.append(dict(turn=turn, clients=clients, requests=len(got), answered=len(ok),
                                 refused=sum(g[0] == 503 for g in got), other=sum(g[0] not in (200, 503) for g in got),
                                 different=len({json.dumps(g[3], sort_keys=True) for g in got if g[0] == 200}),
                                 seconds=round(seconds, 2), median_s=round(float(np.median(ok)), 3),
                                 p95_s=round(float(np.quantile(ok, .95)), 3), before_mb=round(before, 1),
                                 after_mb=round(server.memory(), 1)))
                print(rows[-1], flush=True)
    finally: server.end()
    return rows


def correct(server, clients, until):
    "Clients that correct images until the server is killed: what it has confirmed"
    confirmed = []

    def one(k):
        with t.httpx.Client(base_url=server.url, timeout=60) as c:
            for n in range(10_000):
                seed = k*10_000+n
                files = dict(image=t.photo(seed=seed), mask=json.dumps([seed % 3, 1024]).encode())
                fields = dict(agreed="yes", owner=t.OWNER, verdict="corrected")
                try: r = c.post("/feedback", files=files, data=fields)
                except t.httpx.TransportError: return
                if r.status_code == 200: confirmed.append((r.json()["saved"], seed))
    threads = [threading.Thread(target=one, args=(k,)) for k in range(clients)]
    for x in threads: x.start()
    while len(confirmed) < until: time.sleep(.005)
    time.sleep(random.random()/10)                                          # anywhere in what it does
    server.end(signal.SIGKILL)
    for x in threads: x.join()
    return confirmed


def kill(model, folder, rounds):
    "Rows of kill.csv: one store, killed again and again"
    rows, all_of_them = [], []
    for turn in range(rounds):
        server = t.Server(model, folder/"kill", "--threads", "1")
        confirmed = correct(server, 4, 20)
        all_of_them += confirmed
        with Feedback(folder/"kill", create=False) as store:
            known = set(store.rows().id)
            lost = [i for i, seed in all_of_them if i not in known or set(store.mask(i).flat) != {seed % 3}]
            unjudged = int(store.rows().verdict.isna().sum())
        rows.append(dict(turn=turn, confirmed=len(confirmed), confirmed_so_far=len(all_of_them), lost=len(lost),
                         not_confirmed=len(known)-len(all_of_them), without_verdict=unjudged))
        print(rows[-1], flush=True)
    return rows


def fuzz(model, image, folder, n):
    "Rows of fuzz.csv"
    server, counts, rng = t.Server(model, folder/"fuzz", "--threads", "1"), Counter(), np.random.default_rng(0)
    sources = [image, *(t.photo((40, 30), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))]
    before = server.memory()
    try:
        with t.httpx.Client(base_url=server.url, timeout=60) as c:
            def send(kind, data):
                r = c.post("/predict", files=dict(image=data))
                counts[kind, r.status_code, "Traceback" in r.text or r.status_code >= 500] += 1
            for name, (data, _) in t.HOSTILE.items(): send("hostile", data)
            for k in range(n):
                data = bytearray(sources[k % len(sources)])
                if k % 3 == 0: data = data[:rng.integers(len(data))]
                else:
                    for at in rng.integers(len(data), size=1+k % 20): data[at] = rng.integers(256)
                send("cut" if k % 3 == 0 else "bytes changed", bytes(data))
            assert c.get("/health").json()["waiting"] == 0
        grown = server.memory()-before
    finally: server.end()
    return [dict(kind=kind, status=status, trace_or_500=bad, requests=v, grown_mb=round(grown, 1))
            for (kind, status, bad), v in sorted(counts.items())]


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--out", type=Path, help="folder for the three tables")
    p.add_argument("--rounds", type=int, default=5, help="how often it is killed")
    p.add_argument("--files", type=int, default=800, help="damaged files to send")
    p.add_argument("--only", nargs="+", default=["load", "kill", "fuzz"], help="which tables")
    args = p.parse_args()
    image = find_pairs(streets())[0].images[0].read_bytes()
    with tempfile.TemporaryDirectory() as tmp:
        for name, rows in dict(load=lambda f: load(args.model, image, f), kill=lambda f: kill(args.model, f, args.rounds),
                               fuzz=lambda f: fuzz(args.model, image, f, args.files)).items():
            if name not in args.only: continue
            table = pd.DataFrame(rows(Path(tmp)))
            print(table.to_string(), flush=True)
            if args.out: record(table, args.out/f"{name}.csv", index=False)
