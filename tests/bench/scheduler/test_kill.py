"""kill -9 of any process of a campaign at any moment: the same command then ends with the same bits."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from support import Run, environment

KILLS = 20


def contents(store: Path) -> list[tuple[object, ...]]:
    """Every image's outcome, and what tables are made of."""
    with closing(sqlite3.connect(store)) as connection:
        chunks = connection.execute("SELECT cell_key, start, n, outcome FROM chunks ORDER BY 1, 2").fetchall()
        summary = "SELECT key, status, verdict, clean_hits, robust_hits, robust_any_hits, flags FROM cells ORDER BY 1"
        weights = connection.execute("SELECT key, sha256 FROM weights ORDER BY 1").fetchall()
        return [*chunks, *connection.execute(summary).fetchall(), *weights]


def workers(parent: int) -> list[int]:
    """The processes of a command, its workers last."""
    try:
        return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except OSError:
        return []


def test_killed_at_twenty_random_moments_the_outcomes_are_those_of_an_uninterrupted_run(
    tiny_npz: Path, tmp_path: Path, bench: Run
) -> None:
    seed = int(os.environ.get("BENCH_TEST_SEED", "0"))
    chance = random.Random(seed)
    matrix = [
        "run", "--dataset", str(tiny_npz), "--model", "cnn-small", "--epochs", "4", "-n", "0", "--workers", "2",
        "-d", "vanilla,tgo+at,nlif", "-a", "fgsm,pgd10,pgd40,apgd20",
    ]  # fmt: skip
    began = time.monotonic()
    whole = bench(*matrix, "--results", "whole")
    assert whole.returncode == 0, whole.stderr
    # Between two kills: anything from the first import to the last chunk, however busy the machine is.
    longest = 0.7 * (time.monotonic() - began)
    command = [sys.executable, "-m", "bench", *matrix]
    kills, victims = 0, {"command": 0, "worker": 0}
    while kills < KILLS:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while kills < KILLS:
            time.sleep(chance.uniform(0, longest))
            if process.poll() is not None:
                break
            victim = chance.choice([process.pid, *workers(process.pid)[-2:]])
            victims["command" if victim == process.pid else "worker"] += 1
            kills += 1
            os.kill(victim, signal.SIGKILL)
            if victim == process.pid:
                break
        if process.poll() is None and victims["command"] + victims["worker"] == KILLS:
            process.kill()
        _, errors = process.communicate(timeout=120)
        # Two kills at one task make it fail, five in a row end the run: both are what a rerun is for.
        assert process.returncode in (0, 1, 2, -signal.SIGKILL), errors
        assert "Traceback" not in errors, errors
        if process.returncode == 0:
            # Done before the last kill: begin again from nothing, for the moments that are left.
            assert contents(tmp_path / "results" / "bench.sqlite") == contents(tmp_path / "whole" / "bench.sqlite")
            subprocess.run(["rm", "-rf", str(tmp_path / "results")], check=True)
    assert min(victims.values()) > 0, f"seed {seed} killed only one kind of process: {victims}"
    again = bench(*matrix)
    assert again.returncode == 0, again.stderr
    store = tmp_path / "results" / "bench.sqlite"
    assert contents(store) == contents(tmp_path / "whole" / "bench.sqlite")
    with closing(sqlite3.connect(store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM failures").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM leases").fetchall() == [(0,)]
