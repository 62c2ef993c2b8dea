"""Killed, interrupted, run twice at once, out of disk: nothing committed is lost."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Run, environment

LONG = ["--epochs", "3", "-d", "tgo+at", "-a", "pgd10,pgd40", "-n", "0", "--json"]


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    pipe = subprocess.PIPE

    def heed_ctrl_c() -> None:
        # A shell starts what it puts into the background with SIGINT ignored, and children inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, cwd=cwd, env=environment(), stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def chunks(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM chunks").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def outcomes(store: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(store) as connection:
        return connection.execute("SELECT cell_key, start, outcome FROM chunks ORDER BY 1, 2").fetchall()


def interrupt_in(stage: str, arguments: list[str], folder: Path, how: signal.Signals) -> subprocess.Popen[str]:
    results = folder / "results"
    process = start(arguments, folder)
    reached = {
        "training": lambda: bool(list(results.glob("checkpoints/*.resume.safetensors"))),
        "attack": lambda: chunks(results / "bench.sqlite") > 0,
    }
    wait_for(reached[stage], process)
    process.send_signal(how)
    process.communicate(timeout=60)
    return process


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    process = start(run_arguments(tiny_npz), folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return folder


def run_arguments(tiny_npz: Path) -> list[str]:
    return ["run", "--dataset", str(tiny_npz), "--model", "cnn-small", *LONG]


@pytest.mark.parametrize("stage", ["training", "attack"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues_to_the_same_outcomes(
    uninterrupted: Path, tiny_npz: Path, tmp_path: Path, bench: Run, stage: str, how: signal.Signals
) -> None:
    arguments = run_arguments(tiny_npz)
    process = interrupt_in(stage, arguments, tmp_path, how)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    before = outcomes(tmp_path / "results" / "bench.sqlite")
    again = bench(*arguments)
    assert again.returncode == 0, again.stderr
    after = outcomes(tmp_path / "results" / "bench.sqlite")
    assert set(before) <= set(after)
    assert after == outcomes(uninterrupted / "results" / "bench.sqlite")


def test_ctrl_c_says_that_nothing_is_lost(tiny_npz: Path, tmp_path: Path) -> None:
    process = start(run_arguments(tiny_npz), tmp_path)
    wait_for(lambda: bool(list(tmp_path.glob("results/checkpoints/*.resume.safetensors"))), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Continue with the same command" in errors
    assert "Traceback" not in errors


def test_two_runs_at_once_on_one_store_agree(uninterrupted: Path, tiny_npz: Path, tmp_path: Path) -> None:
    pair = [start(run_arguments(tiny_npz), tmp_path) for _ in range(2)]
    reports = []
    for process in pair:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        reports.append(json.loads(output)["cells"])
    assert [c["robust"] for c in reports[0]] == [c["robust"] for c in reports[1]]
    assert outcomes(tmp_path / "results" / "bench.sqlite") == outcomes(uninterrupted / "results" / "bench.sqlite")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_is_one_line_and_loses_nothing(
    small_disk: Path, tiny_run: list[str], bench: Run, tmp_path: Path
) -> None:
    arguments = [*tiny_run, "-a", "fgsm", "--results", "disk"]
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 150_000)
    full = bench(*arguments)
    assert full.returncode in (1, 2)
    assert "No space left" in full.stderr or "disk is full" in full.stderr
    assert "Traceback" not in full.stderr
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = bench(*arguments)
    assert again.returncode == 0, again.stderr
