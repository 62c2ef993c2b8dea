"""Several worker processes, as a user runs them: the same outcomes, whatever is killed, fails or is stopped."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support import Run, environment

PLUGIN = """
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench import register
from defenses import Defense, Part

HERE = Path(__file__).parent


@register.attack("boom")
def boom(model, x, y, threat, *, rng):
    \"\"\"Fails, unless it was mended.\"\"\"
    if not (HERE / "mended").exists():
        raise ValueError("boom")
    return x


@register.attack("deadly")
def deadly(model, x, y, threat, *, rng, times=1):
    \"\"\"Kills its process the first so many times.\"\"\"
    deaths = HERE / "deaths"
    with deaths.open("a") as file:
        file.write("x")
    if len(deaths.read_text()) <= int(times):
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@register.attack("odd")
def odd(model, x, y, threat, *, rng, how="print"):
    \"\"\"Does what attacks should not.\"\"\"
    print("hello")
    if how == "exit":
        raise SystemExit(0)
    if how == "text":
        raise ValueError(chr(0xD800) + chr(0) + "x" * 3_000_000)
    return x


@register.attack("slow")
def slow(model, x, y, threat, *, rng, seconds=30):
    \"\"\"Takes half a minute a chunk, or until it is told to be quick.\"\"\"
    (HERE / "slow").touch()
    deadline = time.monotonic() + float(seconds)
    while time.monotonic() < deadline and not (HERE / "quick").exists():
        time.sleep(0.05)
    return x


@dataclass(frozen=True)
class Bad(Part):
    name: ClassVar[str] = "bad"
    slot: ClassVar[str] = "input"

    def perturb(self, model, x, y, rng):
        raise RuntimeError("no such layer")


def local():
    @dataclass(frozen=True)
    class Local(Part):
        name: ClassVar[str] = "local"
        slot: ClassVar[str] = "input"

    return Local()


@register.defense("unsendable")
def unsendable() -> Defense:
    \"\"\"Of a class that no other process finds.\"\"\"
    return Defense("unsendable", (local(),))


@register.defense("bad")
def bad() -> Defense:
    \"\"\"Cannot be trained.\"\"\"
    return Defense("bad", (Bad(),))
"""
FAILED = "vanilla (seed 0) under boom at eps 8/255"
POOL = ["--workers", "2", "--json"]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "parts.py"
    path.write_text(PLUGIN)
    return path


def outcomes(store: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute("SELECT cell_key, start, outcome FROM chunks ORDER BY 1, 2").fetchall()


def query(store: Path, text: str) -> list[tuple[object, ...]]:
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
            return connection.execute(text).fetchall()
    except sqlite3.OperationalError:
        return []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Run `bench ARGUMENTS` beside the test; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench", *map(str, arguments)]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        process.communicate()


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_a_pool_gives_the_outcomes_of_one_process_and_trains_each_network_once(
    tiny_run: list[str], bench: Run, tmp_path: Path
) -> None:
    matrix = [*tiny_run, "-d", "vanilla,at,nlif", "-a", "fgsm,pgd3,pgd5,apgd3", "--json"]
    one = bench(*matrix, "--results", "one")
    several = bench(*matrix, "--results", "several", *POOL)
    assert (one.returncode, several.returncode) == (0, 0), one.stderr + several.stderr
    assert outcomes(tmp_path / "one" / "bench.sqlite") == outcomes(tmp_path / "several" / "bench.sqlite")
    assert len(json.loads(several.stdout)["cells"]) == 12
    store = tmp_path / "several" / "bench.sqlite"
    assert query(store, "SELECT count(*) FROM workers WHERE ended") == [(2,)]
    assert query(store, "SELECT count(DISTINCT run_id) FROM chunks") == [(2,)], "both worked"
    assert query(store, "SELECT count(*) FROM leases") == [(0,)]
    assert query(store, "SELECT state, cells, stored, done, failed FROM campaigns") == [("done", 12, 0, 12, 0)]
    assert several.stderr.count("] training ") == 3
    assert "[1] " in several.stderr
    assert "12 of 12 cells done" in several.stderr


def test_what_fails_is_stored_with_its_traceback_and_stops_nothing_else(
    tiny_run: list[str], bench: Run, tmp_path: Path, plugin: Path
) -> None:
    arguments = [*tiny_run, "--plugin", plugin, "-d", "vanilla,bad", "-a", "fgsm,boom,pgd3", *POOL]
    first = bench(*arguments)
    assert first.returncode == 1
    report = json.loads(first.stdout)
    assert [cell["attack"] for cell in report["cells"]] == ["fgsm", "pgd3"]
    assert sorted(line.partition(":")[0] for line in report["failures"]) == [
        "bad (seed 0)",
        FAILED,
    ]
    status = json.loads(bench("status", "--json").stdout)
    assert {failure["what"] for failure in status["failures"]} == {"bad (seed 0)", FAILED}
    for failure in status["failures"]:
        shown = bench("show", failure["key"][:20])
        assert "Traceback" in shown.stdout
        assert ("no such layer" if "bad" in failure["what"] else 'raise ValueError("boom")') in shown.stdout
    (tmp_path / "mended").touch()
    second = bench(*arguments)
    assert second.returncode == 1, "the training still fails"
    assert json.loads(second.stdout)["computed"] == 1, "only what was missing"
    assert "fgsm" not in second.stderr
    left = json.loads(bench("status", "--json").stdout)["failures"]
    assert [failure["what"] for failure in left] == ["bad (seed 0)"]


def test_a_killed_worker_is_replaced_and_its_cell_measured_by_another(
    tiny_run: list[str], bench: Run, plugin: Path
) -> None:
    result = bench(*tiny_run, "--plugin", plugin, "-a", "deadly,fgsm,pgd3", *POOL)
    assert result.returncode == 0, result.stderr
    assert "was killed (SIGKILL: out of memory?); another tries again" in result.stderr
    assert len(json.loads(result.stdout)["cells"]) == 3


def test_a_cell_that_kills_every_worker_has_failed_and_the_others_are_done(
    tiny_run: list[str], bench: Run, plugin: Path
) -> None:
    result = bench(*tiny_run, "--plugin", plugin, "-a", "deadly:times=9,fgsm,pgd3", *POOL)
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert [cell["attack"] for cell in report["cells"]] == ["fgsm", "pgd3"]
    assert "2 workers were killed at it" in report["failures"][0]
    assert "2 workers were killed" in bench("ls", "runs", "--json").stdout


def test_several_deadly_cells_end_no_campaign(tiny_run: list[str], bench: Run, plugin: Path) -> None:
    arguments = [*tiny_run, "--plugin", plugin, "-a", "deadly:times=99,fgsm", "--eps", "0.1,0.2,0.3", *POOL]
    result = bench(*arguments)
    assert result.returncode == 1, result.stderr
    report = json.loads(result.stdout)
    assert ([cell["attack"] for cell in report["cells"]], len(report["failures"])) == (["fgsm"] * 3, 3)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", ["exit", "text"])
def test_whatever_an_attack_raises_is_a_failed_cell(
    tiny_run: list[str], bench: Run, plugin: Path, how: str, workers: str
) -> None:
    arguments = [*tiny_run, "--plugin", plugin, "-a", f"odd:how={how},fgsm", "--json", "--workers", workers]
    result = bench(*arguments)
    assert result.returncode == 1, result.stderr[-2000:]
    report = json.loads(result.stdout)
    assert ([cell["attack"] for cell in report["cells"]], len(report["failures"])) == (["fgsm"], 1)
    # What the attack printed is no part of the answer.
    assert "hello" in result.stderr
    [failure] = json.loads(bench("status", "--json").stdout)["failures"]
    assert len(failure["error"]) < 3000
    assert len(failure["traceback"]) < 200_000
    assert bench("status", "--forget", failure["key"][:10]).stdout == "forgot 1 failure\n"
    assert json.loads(bench("status", "--json").stdout)["failures"] == []
    assert bench("status", "--forget", "all").returncode == 2


def test_what_cannot_be_sent_to_another_process_is_one_line(tiny_run: list[str], bench: Run, plugin: Path) -> None:
    arguments = [*tiny_run, "--plugin", plugin, "-d", "unsendable", "-a", "fgsm"]
    refused = bench(*arguments, *POOL)
    assert refused.returncode == 2
    assert "at the top of the plug-in's file, or use --workers 1" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert bench(*arguments).returncode == 0


def test_a_halted_worker_is_replaced(
    tiny_run: list[str], start: Callable[..., subprocess.Popen[str]], tmp_path: Path, plugin: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("BENCH_GRACE", "1")
    process = start(*tiny_run, "--plugin", plugin, "-a", "slow:seconds=300,fgsm", "-d", "vanilla,at", *POOL)
    wait_for((tmp_path / "slow").exists, process)
    store = tmp_path / "results" / "bench.sqlite"
    wait_for(lambda: query(store, "SELECT 1 FROM workers WHERE doing LIKE '%slow%'"), process)
    [(pid,), *_] = query(store, "SELECT pid FROM workers WHERE doing LIKE '%slow%'")
    os.kill(int(str(pid)), signal.SIGSTOP)
    (tmp_path / "quick").touch()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "was killed (SIGKILL" in errors


@pytest.mark.parametrize("workers", [1, 2])
def test_status_says_what_runs_and_cancel_ends_it(
    tiny_run: list[str], bench: Run, start: Callable[..., subprocess.Popen[str]], tmp_path: Path, plugin: Path,
    workers: int,
) -> None:  # fmt: skip
    arguments = [*tiny_run, "--plugin", plugin, "-a", "fgsm,slow", "--json", "--workers", str(workers)]
    process = start(*arguments)
    wait_for((tmp_path / "slow").exists, process)
    store = tmp_path / "results" / "bench.sqlite"
    wait_for(lambda: query(store, "SELECT 1 FROM workers WHERE doing LIKE '%slow%'"), process)
    shown = bench("status")
    assert f"campaign 1: bench {' '.join(map(str, arguments))}" in shown.stdout.replace("\n", "")
    assert "vanilla / slow" in shown.stdout
    assert "1 running" in shown.stdout
    [campaign] = json.loads(bench("status", "--json").stdout)["campaigns"]
    assert (campaign["state"], campaign["cells"], campaign["running"]) == ("running", 2, 1)
    assert bench("cancel").returncode == 0
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "cancelled with bench cancel; all that was finished is kept" in errors
    assert "Traceback" not in errors
    assert query(store, "SELECT count(*) FROM leases") == [(0,)]
    assert "Nothing runs" in bench("status").stdout
    assert "cancelled" in bench("status", "--all").stdout
    refused = bench("cancel")
    assert refused.returncode == 2
    assert "none runs" in refused.stderr
    # What was finished is not done again.
    assert query(store, "SELECT attack FROM cells WHERE status = 'done'") == [("fgsm",)]


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_gives_back_what_was_taken_on(
    tiny_run: list[str], start: Callable[..., subprocess.Popen[str]], tmp_path: Path, plugin: Path, workers: int
) -> None:
    process = start(*tiny_run, "--plugin", plugin, "-a", "slow", "--workers", str(workers))
    wait_for((tmp_path / "slow").exists, process)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "terminated; all that was finished is kept" in errors
    store = tmp_path / "results" / "bench.sqlite"
    assert query(store, "SELECT count(*) FROM leases") == [(0,)]
    assert query(store, "SELECT state FROM campaigns") == [("interrupted",)]


def test_workers_end_with_their_parent(
    tiny_run: list[str], start: Callable[..., subprocess.Popen[str]], tmp_path: Path, plugin: Path
) -> None:
    process = start(*tiny_run, "--plugin", plugin, "-a", "slow", *POOL)
    wait_for((tmp_path / "slow").exists, process)
    store = tmp_path / "results" / "bench.sqlite"
    workers = [int(str(pid)) for (pid,) in query(store, "SELECT pid FROM workers")]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_budget_of_forwards_ends_a_run_that_the_same_command_continues(
    tiny_run: list[str], bench: Run, tmp_path: Path, workers: str
) -> None:
    matrix = [*tiny_run, "-a", "fgsm,pgd3,pgd20,apgd20", "-n", "128", "--json", "--workers", workers]
    whole = bench(*matrix, "--results", "whole")
    cut = bench(*matrix, "--max-forwards", "500")
    assert (whole.returncode, cut.returncode) == (0, 3), cut.stderr
    assert "stopped: --max-forwards 500 are spent" in cut.stderr
    store = tmp_path / "results" / "bench.sqlite"
    [(spent,)] = query(store, "SELECT sum(forwards) FROM cells")
    assert 500 <= int(str(spent)) < 500 + 128 * 50 * int(workers)
    assert json.loads(cut.stdout)["computed"] >= 1, "cheap cells came first"
    rest = bench(*matrix)
    assert rest.returncode == 0, rest.stderr
    assert outcomes(store) == outcomes(tmp_path / "whole" / "bench.sqlite")


def test_a_budget_of_time_ends_a_training_after_an_epoch_and_the_rest_gives_the_same_network(
    tiny_run: list[str], bench: Run, tmp_path: Path
) -> None:
    longer = [*tiny_run, "--epochs", "6", "-a", "fgsm", "--json"]
    whole = bench(*longer, "--results", "whole")
    cut = bench(*longer, "--max-time", "0.01s")
    assert (whole.returncode, cut.returncode) == (0, 3), cut.stderr
    for _ in range(8):
        rest = bench(*longer, "--max-time", "0.3s")
        if rest.returncode != 3:
            break
    assert bench(*longer).returncode == 0
    assert outcomes(tmp_path / "results" / "bench.sqlite") == outcomes(tmp_path / "whole" / "bench.sqlite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--max-time", "soon"], "write it as 90s, 15m, 1h30m or 2d"),
        (["--max-forwards", "0"], "--max-forwards must be at least 1"),
        (["--executor", "slurm"], "--executor must be local or ray"),
        (["--gpus-per-worker", "1"], "is for --executor ray"),
    ],
)
def test_a_mistake_is_one_line(tiny_run: list[str], bench: Run, options: list[str], message: str) -> None:
    result = bench(*tiny_run, "-a", "fgsm", *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5, 3.5])
def test_ctrl_c_at_any_stage_is_one_line_and_leaves_no_process(
    tiny_run: list[str], start: Callable[..., subprocess.Popen[str]], plugin: Path, seconds: float
) -> None:
    process = start(*tiny_run, "--plugin", plugin, "-a", "slow", "-d", "vanilla,at", *POOL)
    group = os.getpgid(process.pid)
    wait_for(lambda: len(children(process.pid)) >= 2, process)
    time.sleep(seconds)
    # As a terminal does: to all of them.
    os.killpg(group, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted; all that was finished is kept" in errors
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10
    while alive(group):
        assert time.monotonic() < deadline, "something outlived the command"
        time.sleep(0.05)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


@pytest.mark.parametrize(
    ("workers", "matrix", "begun"),
    [
        (1, ["-a", "slow:seconds=300,pgd3"], 1),
        (2, ["-a", "slow:seconds=300,pgd3"], 1),
        (2, ["-a", "slow:seconds=300", "-d", "vanilla,at"], 2),
    ],
    ids=["alone", "one idle", "all busy"],
)
def test_cancel_can_let_what_runs_end_its_chunk(
    tiny_run: list[str], bench: Run, start: Callable[..., subprocess.Popen[str]], tmp_path: Path, plugin: Path,
    workers: int, matrix: list[str], begun: int,
) -> None:  # fmt: skip
    process = start(*tiny_run, "--plugin", plugin, *matrix, "--workers", str(workers), "--json")
    store = tmp_path / "results" / "bench.sqlite"
    wait_for(lambda: len(query(store, "SELECT 1 FROM workers WHERE doing LIKE '%slow%'")) == begun, process)
    assert bench("cancel", "--finish").returncode == 0
    [(beat,)] = query(store, "SELECT beat FROM campaigns")
    wait_for(lambda: query(store, f"SELECT 1 FROM campaigns WHERE beat >= {beat} + 2"), process)
    time.sleep(1)
    (tmp_path / "quick").touch()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert "stopped: it was asked to stop" in errors
    chunks = query(store, "SELECT count(*) FROM chunks JOIN cells ON cell_key = key WHERE attack LIKE 'slow%'")
    assert chunks == [(begun,)], "its chunk, and no other"
    assert json.loads(output)["left"] >= 1
