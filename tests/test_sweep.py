"""Sweeps by real processes: a PostgreSQL server, workers killed in the middle, early stopping, interruptions."""
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import yaml

optuna = pytest.importorskip("optuna")

from segnb.sweep import open_sweep, read_sweep, sweep_runs, sweep_status, run_sweep, trainer  # noqa: E402


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    pgserver = pytest.importorskip("pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture
def sweep_file(small_set, tmp_path):
    parameters = dict(data={"value": str(small_set)}, epochs={"value": 1}, encoder={"values": ["tf_efficientnet_lite0", "edgenext_xx_small"]},
                      lr={"values": [1e-3, 3e-3, 1e-2]}, crop={"values": [[32, 32], [64, 64]]}, pretrained={"value": False})
    file = tmp_path / "twelve.yaml"
    file.write_text(yaml.safe_dump(dict(method="grid", metric=dict(name="mean_iou", goal="maximize"), parameters=parameters)))
    return file


def start(file, store, tmp_path, waits=False):
    "A worker; one that `waits` has imported everything and begins with a line on its standard input"
    env = dict(os.environ, TRACKIO_DIR=str(tmp_path / "trackio"), OMP_NUM_THREADS="1")
    how = ["-c", "import sys, segnb.recipe, segnb.sweep; from segnb.cli import main; input(); sys.exit(main())"] if waits else ["-m", "segnb.cli"]
    return subprocess.Popen([sys.executable, *how, "sweep", str(file), "--store", str(store), "--threads", "1", "--heartbeat", "1"],
                            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(f, seconds=120):
    end = time.time() + seconds
    while not f():
        assert time.time() < end, "nothing happened"
        time.sleep(.05)


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_two_workers_one_killed_a_third_started(kind, request, sweep_file, tmp_path):
    store = request.getfixturevalue("postgres") if kind == "postgres" else tmp_path / "twelve.db"
    third = start(sweep_file, store, tmp_path, waits=True)      # on a slow machine the others would be done while it imports
    workers = [start(sweep_file, store, tmp_path) for _ in range(2)]
    victim = workers[0]
    study = lambda: open_sweep(read_sweep(sweep_file), store)
    by = lambda w: [t for t in study().trials if t.user_attrs.get("worker", "").endswith(f" {w.pid}")]
    of = lambda w, state: [t for t in by(w) if t.state.name == state]
    wait_for(lambda: of(victim, "COMPLETE") or victim.poll() is not None)
    assert victim.poll() is None, victim.communicate()[0]
    wait_for(lambda: of(victim, "RUNNING"))
    victim.kill()
    victim.wait()
    lost = {t.user_attrs["slot"] for t in of(victim, "RUNNING")}
    third.stdin.write("\n")
    third.stdin.flush()
    workers[0] = third
    ends = [w.communicate(timeout=300)[0] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], ends
    done = [t for t in study().trials if t.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["slot"] for t in done) == list(range(12))
    assert len({tuple(sorted(t.params.items())) for t in done}) == 12
    table = sweep_runs(study())
    assert len(lost) == 1 and table.tried[lost.pop()] == 2 and table.tried.sum() == 13
    assert len({t.user_attrs["worker"] for t in done}) == 3
    assert "12 runs: 12 complete" in sweep_status(study()) and all("12 complete" in e for e in ends)


def spec(**kw):
    return read_sweep(dict(name="s", method="grid", metric=dict(name="score", goal="maximize"), parameters={"a": {"values": [3, 1, 2, 0]}}) | kw)


def test_poor_runs_are_stopped_early_as_hyperband_does():
    steps = []

    def objective(config, report):
        for epoch in range(1, 5):
            steps.append((config["a"], epoch))
            report(epoch, config["a"] * epoch)
        return config["a"] * 4

    study = run_sweep(spec(early_terminate=dict(type="hyperband", min_iter=1, eta=2)), objective, say=lambda s: None)
    states = {t.params["a"]: t.state.name for t in study.trials}
    assert states[3] == "COMPLETE" and states[0] == "PRUNED"
    assert len(steps) < 16


def test_a_training_is_stopped_early(small_set):
    s = read_sweep(dict(name="s", method="grid", early_terminate=dict(type="hyperband", min_iter=1, eta=2), parameters=dict(
        data={"value": str(small_set)}, epochs={"value": 2}, lr={"values": [1e-2, 1e-6]}, crop={"value": [64, 64]})))
    study = run_sweep(s, trainer(s, track=False), say=lambda s: None)
    assert sweep_runs(study).state.tolist() == ["complete", "pruned"], sweep_runs(study).error.tolist()
    assert sweep_runs(study).tried.tolist() == [1, 1]


def test_a_score_that_is_no_number_is_an_error_and_ends():
    study = run_sweep(spec(), lambda config, report: float("nan") if config["a"] == 1 else 1., say=lambda s: None)
    assert sweep_runs(study).state.tolist() == ["complete", "fail", "complete", "complete"]
    assert "score is nan" in sweep_runs(study).error[1]


def killed(study, file):
    "A trial whose worker has gone: it runs, and its heartbeat is an hour old"
    trial = study.ask()
    with sqlite3.connect(file) as db: db.execute("update trial_heartbeats set heartbeat = '2020-01-01 00:00:00'")
    db.close()
    return trial


def test_a_run_whose_worker_was_killed_is_done_by_another(tmp_path):
    from segnb.sweep import plan
    study = open_sweep(spec(), tmp_path / "s.db")
    plan(study, spec())
    lost = killed(study, tmp_path / "s.db")
    table = sweep_runs(run_sweep(spec(), lambda config, report: config["a"], tmp_path / "s.db", say=lambda s: None))
    assert table.state.tolist() == ["complete"] * 4 and table.tried.tolist() == [2, 1, 1, 1]
    assert open_sweep(spec(), tmp_path / "s.db").trials[lost.number].state.name == "FAIL"


def test_a_worker_that_lives_keeps_its_run(tmp_path):
    from optuna.storages import fail_stale_trials
    from segnb.sweep import plan
    study = open_sweep(spec(), tmp_path / "s.db")
    plan(study, spec())
    study.ask()
    fail_stale_trials(study)
    assert [t.state.name for t in study.trials].count("RUNNING") == 1
    plan(study, spec())
    assert len(study.trials) == 4                               # its slot is not put into the queue again


def test_a_result_that_comes_too_late_is_dropped(tmp_path):
    told, late = [], []

    def objective(config, report):
        study = open_sweep(spec(), tmp_path / "s.db")
        running = [t for t in study.trials if t.state.name == "RUNNING"]
        if not late:                                            # another worker has taken it for dead
            late.append(running[0].number)
            study._storage.set_trial_state_values(running[0]._trial_id, optuna.trial.TrialState.FAIL)
        return 1.

    table = sweep_runs(run_sweep(spec(), objective, tmp_path / "s.db", say=told.append))
    assert table.state.tolist() == ["complete"] * 4 and table.tried.tolist() == [2, 1, 1, 1]
    assert any("its result is dropped" in t for t in told)
    assert open_sweep(spec(), tmp_path / "s.db").trials[late[0]].state.name == "FAIL"


def test_what_is_queued_twice_is_done_once(tmp_path):
    from segnb.sweep import plan
    study = open_sweep(spec(), tmp_path / "s.db")
    plan(study, spec())
    study.enqueue_trial({"a": 3}, user_attrs={"slot": 0})       # two workers that looked at the same moment
    study.enqueue_trial({"a": 7}, user_attrs={"slot": 9})       # beyond the plan
    done = []
    table = sweep_runs(run_sweep(spec(), lambda config, report: done.append(config["a"]) or 1., tmp_path / "s.db", say=lambda s: None))
    assert sorted(done) == [0, 1, 2, 3] and table.state.tolist()[:4] == ["complete"] * 4
    assert table.tried.tolist()[:4] == [1] * 4


def test_a_journal_of_an_earlier_version_is_named(tmp_path):
    (tmp_path / "s.journal").write_text('{"op_code": 0}\n')
    with pytest.raises(ValueError, match="s.journal: not a SQLite file"): open_sweep(spec(), tmp_path / "s.journal")


def test_scores_may_have_any_name():
    study = run_sweep(spec(metric=dict(name="value", goal="maximize")), lambda config, report: dict(value=config["a"], seconds=12, state=3, slot=7), say=lambda s: None)
    assert sweep_runs(study).state.tolist() == ["complete"] * 4 and "4 complete" in sweep_status(study)


def test_what_is_going_on_cannot_be_changed(tmp_path):
    run_sweep(spec(), lambda config, report: config["seed"], tmp_path / "s.db", seeds=[1], say=lambda s: None)
    with pytest.raises(ValueError, match="other seeds"): run_sweep(spec(), lambda config, report: 1., tmp_path / "s.db")
    with pytest.raises(ValueError, match="is a parameter as well"): run_sweep(spec(parameters={"seed": {"values": [1]}}), lambda config, report: 1., seeds=[1])


def test_runs_end_when_the_target_is_reached():
    study = run_sweep(spec(metric=dict(name="score", goal="maximize", target=3)), lambda config, report: config["a"], say=lambda s: None)
    assert [t.params["a"] for t in study.trials if t.state.name == "COMPLETE"] == [3]


def test_seeds_repeat_and_the_mean_counts():
    study = run_sweep(spec(), lambda config, report: config["a"] + config["seed"], seeds=[0, 1, 5], say=lambda s: None)
    assert sweep_runs(study).value.tolist() == [5, 3, 4, 2]
    assert study.trials[0].user_attrs["scores"]["each score"] == [3, 4, 8]


def test_what_always_fails_is_tried_three_times_and_told(tmp_path):
    told = []

    def objective(config, report):
        if config["a"] == 1: raise RuntimeError("no such luck")
        return 1.

    study = run_sweep(spec(), objective, tmp_path / "s.db", say=told.append)
    table = sweep_runs(study)
    assert table.state.tolist() == ["complete", "fail", "complete", "complete"]
    assert table.tried.tolist() == [1, 3, 1, 1] and "no such luck" in table.error[1]
    assert sum("no such luck" in t for t in told) == 3


def test_other_settings_under_the_same_name_are_refused(tmp_path):
    open_sweep(spec(), tmp_path / "s.db")
    with pytest.raises(ValueError, match="other parameters"): open_sweep(spec(parameters={"a": {"values": [1]}}), tmp_path / "s.db")
    with pytest.raises(ValueError, match="has not begun"): open_sweep(spec(), tmp_path / "t.db", new=False)


def test_an_interrupted_worker_hands_its_run_back(tmp_path):
    code = ("import sys, time\nfrom segnb.sweep import run_sweep\n"
            f"def objective(config, report): print('begins', flush=True); time.sleep(60)\nrun_sweep({spec()!r}, objective, {str(tmp_path / 's.db')!r})")
    p = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert p.stdout.readline() == "begins\n"
    p.send_signal(signal.SIGINT)
    assert p.wait(30) != 0
    study = open_sweep(spec(), tmp_path / "s.db")
    handed_back = [t for t in study.trials if t.state.name == "FAIL"]
    assert len(handed_back) == 1 and handed_back[0].user_attrs["interrupted"] and "RUNNING" not in [t.state.name for t in study.trials]
    assert len(run_sweep(spec(), lambda config, report: 1., tmp_path / "s.db", say=lambda s: None).best_trials) == 4


def hold_a_gpu(pipe):
    "A worker that takes a GPU, says which, and keeps it until it is told to end"
    from segnb.sweep import own_gpu
    try: pipe.send(own_gpu() if own_gpu() == own_gpu() else 'another in the second sweep')
    except OSError as e: pipe.send(str(e))
    pipe.recv()


def test_each_worker_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    "Two pretended GPUs: the third worker is refused, and gets the one of a worker that was killed"
    import multiprocessing, tempfile, torch
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda k: None)
    monkeypatch.setattr("segnb.sweep._gpu_id", lambda k: f"GPU-{k}")
    fork, workers = multiprocessing.get_context("fork"), []
    def start():
        here, there = fork.Pipe()
        workers.append((fork.Process(target=hold_a_gpu, args=(there,), daemon=True), here))
        workers[-1][0].start()
        return here.recv()
    assert [start(), start()] == [0, 1]
    assert start() == "all 2 GPUs that this process sees have a worker"
    workers[0][0].kill()
    workers[0][0].join(20)
    assert start() == 0
    for p, _ in workers: p.kill()
