"""What `make test` runs: package against notebooks, notebooks, pytest, docs; ends with one line of counts."""
import multiprocessing, multiprocessing.connection, os, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from common import notebooks_in, root

bin = Path(sys.executable).parent
results = {}                                           # name: passed, failed
lost = []                                              # runs of pytest in which a test process died: said at the end
workers = 2                                            # notebooks, or files of tests, at once; each gets its share of the threads
os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) // workers))
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"      # looking for a GPU must not start CUDA here: processes are forked


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


def run_notebook(path, **flags):
    "In a process: its exit status says whether all cells ran"
    from nbdev.test import test_nb
    passed, seconds = test_nb(path, basepath=root, cell_timing_min=8, **flags)
    print(f"{path.relative_to(root)}: {seconds:.0f} s", flush=True)
    sys.exit(not passed)


def notebooks():
    """Run every notebook; cells flagged `cuda` only where there is a GPU, those flagged `slow` there or with `make test SLOW=1`.
    Each has a process of its own, because a notebook defines what the package exports once more. They are forked from this
    one, so that only one imports."""
    import torch, segnb.all                            # noqa: F401
    from nbdev.config import get_config
    gpu = torch.cuda.is_available()
    asked = ["cuda"] * gpu + ["slow"] * (gpu or os.environ.get("SLOW") == "1")
    flags = dict(skip_flags=get_config(root).tst_flags.split(), force_flags=asked)

    todo, running, passed = notebooks_in(root / "nbs"), {}, []
    while todo or running:
        while todo and len(running) < workers:
            path = todo.pop(0)
            process = multiprocessing.get_context("fork").Process(target=run_notebook, args=[path], kwargs=flags)
            process.start()
            running[process.sentinel] = process, path
        for sentinel in multiprocessing.connection.wait([*running]):
            process, path = running.pop(sentinel)
            process.join()
            passed.append(process.exitcode == 0)
            if not passed[-1]: print(f"{path.relative_to(root)} failed ({process.exitcode})", flush=True)
    return sum(passed), len(passed) - sum(passed)


def groups():
    "Files of tests in eight groups of about the same size"
    files = sorted((root / "tests").glob("test_*.py"), key=lambda p: -p.stat().st_size)
    return [files[k::8] for k in range(8)]


def pytest(group):
    """Run files of tests in a process of their own. Python dies now and then when a process that has run a hundred tests
    starts another one (SIGSEGV sent by the kernel; the cause is not known), so a process runs fewer, and a group whose
    process died is run once more."""
    for _ in range(2):
        run = subprocess.run([sys.executable, "-m", "pytest", "--durations=5", *group], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
    # one more than there are workers: tests wait a fifth of their time, for browsers and other processes
    with ThreadPoolExecutor(workers + 1) as pool: list(pool.map(lambda job: step(*job), rest))
    used = sum(os.times()[:4])                         # of this process and of all that it started
    print("\n" + ", ".join(f"{n} {p}/{p + f}" for n, (p, f) in results.items()) + f", {time.time() - start:.0f} s, {used:.0f} CPU seconds")
    if lost: print(f"{len(lost)} test processes died, see above: look for the cause")
    passed, failed = map(sum, zip(*results.values()))
    print(f"total: {passed} passed, {failed} failed")
    sys.exit(int(failed > 0))
