"""What `make test` runs: package against notebooks, notebooks, pytest, docs; ends with one line of counts."""
import os, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from common import notebooks_in, root

bin = Path(sys.executable).parent
results = {}                                           # name: passed, failed
lost = []                                              # runs of pytest in which a test process died: said at the end
workers = 2                                            # notebooks, or files of tests, at once; each gets its share of the threads
env = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // workers))}


def step(name, run):
    "Run a part of the checks and add to the counts of its name"
    print(f"\n== {name}", flush=True)
    start = time.time()
    try: passed, failed = run()
    except (Exception, SystemExit) as e:
        passed, failed = 0, 1
        print(f"{type(e).__name__}: {e}")
    before = results.get(name, (0, 0))
    results[name] = before[0] + passed, before[1] + failed
    print(f"== {name}: {passed} passed, {failed} failed in {time.time() - start:.0f} s", flush=True)


def exports():
    "Export the notebooks in a copy; package and README must be what stands here"
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp) / "segnb-copy"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".venv", ".git", "_docs", "_proc", "_nbs", "demo", "__pycache__", "*.egg-info"))
        subprocess.run([bin / "nbdev-export"], cwd=copy, check=True)
        files = sorted({p.relative_to(r) for r in (root, copy) for p in (r / "segnb").glob("*.py")})
        stale = [f for f in files if read(root / f) != read(copy / f)]
        subprocess.run([bin / "nbdev-clean"], cwd=copy, check=True)
        stale += [n.relative_to(root) for n in notebooks_in(root / "nbs") if read(n) != read(copy / n.relative_to(root))]
    for f in stale: print(f"{f} is not what the notebooks give: run nbdev-export and nbdev-clean")
    readme = subprocess.run([sys.executable, "tools/readme.py", "--check"], cwd=root).returncode
    return len(files) + 1 - len(stale) - bool(readme), len(stale) + bool(readme)


def read(path): return path.read_text(encoding="utf-8") if path.exists() else None


def notebooks():
    "Run every notebook; cells flagged `cuda` only where there is a GPU"
    import torch
    flags = ["--flags", "cuda"] if torch.cuda.is_available() else []
    names = sorted(p.name for p in notebooks_in(root / "nbs"))
    run = subprocess.run([bin / "nbdev-test", "--timing", "--cell-timing-min", "8", "--n-workers", str(workers), *flags], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    print(run.stdout)
    failed = [n for n in names if re.search(rf"^\t{re.escape(n)}$", run.stdout, re.M)]
    if run.returncode and not failed: failed = names
    return len(names) - len(failed), len(failed)


def groups():
    "Files of tests in eight groups of about the same size"
    files = sorted((root / "tests").glob("test_*.py"), key=lambda p: -p.stat().st_size)
    return [files[k::8] for k in range(8)]


def pytest(group):
    """Run files of tests in a process of their own. Python dies now and then when a process that has run a hundred tests
    starts another one (SIGSEGV sent by the kernel; the cause is not known), so a process runs fewer, and a group whose
    process died is run once more."""
    for _ in range(2):
        run = subprocess.run([sys.executable, "-m", "pytest", "--durations=5", *group], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        print(run.stdout, flush=True)
        if run.returncode >= 0: break
        lost.append(run)
        print(f"the process that ran {', '.join(p.name for p in group)} died of signal {-run.returncode}", flush=True)
    count = lambda word: int((re.findall(rf"(\d+) {word}", run.stdout.splitlines()[-1]) or [0])[0])
    failed = count("failed") + count("error")
    return count("passed"), failed or int(run.returncode != 0)


def docs():
    sys.path.insert(0, str(root / "tools"))
    import docs as site
    return site.build(), 0


if __name__ == "__main__":
    start = time.time()
    step("notebooks", notebooks)
    rest = [("docs", docs), ("exports", exports), *(("pytest", partial(pytest, g)) for g in groups())]
    with ThreadPoolExecutor(workers) as pool: list(pool.map(lambda job: step(*job), rest))
    print("\n" + ", ".join(f"{n} {p}/{p + f}" for n, (p, f) in results.items()) + f", {time.time() - start:.0f} s")
    if lost: print(f"{len(lost)} test processes died, see above: look for the cause")
    passed, failed = map(sum, zip(*results.values()))
    print(f"total: {passed} passed, {failed} failed")
    sys.exit(int(failed > 0))
