"""`bench tune` as a user types it."""

import csv
import io
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from support import ROOT, Run, environment
from typer.testing import CliRunner

from bench.cli import app

pytest.importorskip("optuna")

GUIDE = (ROOT / "docs" / "tuning.md").read_text()
QUICK = ["--model", "tiny", "--epochs", "1", "--train-size", "100"]


def shown(marker: str) -> list[list[str]]:
    """The commands of a block of the guide, without `bench`."""
    block = GUIDE.partition(f"<!-- command: {marker} -->\n```sh\n")[2].partition("```")[0]
    assert block, marker
    return [shlex.split(line)[1:] for line in block.splitlines()]


Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `bench ARGUMENTS` in this process, which has imported everything, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)], prog_name="bench")


def test_the_guide_s_commands_run_and_say_what_the_guide_says(call: Call, tmp_path: Path) -> None:
    search, run, table = shown("tune")
    searched = call(*search, *QUICK, "--budget", "2")
    assert searched.exit_code == 0, searched.stderr
    assert "vanilla: trial 0 to 1 of 2" in searched.stderr and "at: trial 0 to 1 of 2" in searched.stderr
    assert "20 of 20 held-out images, 80 trained on" in searched.stdout
    options = "-a pgd10 --model tiny --epochs 1 --train-size 100"
    assert f"bench run -d at --tuned {options}\n" in searched.stdout
    missing = call(*run, *QUICK, "-n", "20", "-T", "3")
    assert missing.exit_code == 2
    assert "first: bench tune -d vanilla --budget 20 --model tiny --time-steps 3 --epochs 1" in missing.stderr
    done = call(*run, *QUICK, "-n", "20", "--json")
    assert done.exit_code == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert [cell["dataset"] for cell in cells] == ["digits"] * 2
    assert all("(tuned: best of 2 trials; " in cell["defense"] for cell in cells)
    note = call(*table).stdout
    assert "best of 2 trials; " in note and "on 20 held-out training images" in note
    assert "held-out:" not in note
    everything = call("ls", "runs", "--json")
    assert {cell["key"] for cell in json.loads(everything.stdout)} == {cell["key"] for cell in cells}
    assert "best of 2 trials; " in call("leaderboard").stdout
    studies, one, lines = (call(*command) for command in shown("show"))
    assert [word in studies.stdout for word in ("vanilla", "at", "tiny, T 4", "pgd10")] == [True] * 4
    assert "Best: trial" in one.stdout and "at.eps" in one.stdout
    assert lines.exit_code == 0
    trials = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert [(line["defense"], line["trial"]) for line in trials] == [
        ("vanilla", "0"), ("vanilla", "1"), ("at", "0"), ("at", "1"),
    ]  # fmt: skip
    key = trials[3]["cells"]
    again = call("show", key[:12], "--repeat", "--json")
    assert json.loads(again.stdout)["exact"], again.stdout


def test_killed_and_continued_by_two_workers_it_finds_what_one_finds_undisturbed(
    bench: Run, call: Call, tiny_npz: Path, tmp_path: Path
) -> None:
    command = ["tune", "-d", "mc", "-a", "pgd3", "--dataset", str(tiny_npz), "--model", "cnn-small", "--epochs", "2"]
    command += ["--budget", "3", "--json"]
    whole = call(*command, "--results", "whole")
    assert whole.exit_code == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *command],
        cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("results/checkpoints/*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    continued = bench(*command, "--workers", "2")
    assert continued.returncode == 0, continued.stderr
    assert json.loads(continued.stdout) == json.loads(whole.stdout)
    # All of it is answered from the store the second time.
    again = call(*command)
    assert "training" not in again.stderr and again.stdout == continued.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "how many trials each defense gets: --budget 20"),
        (["--budget", "0"], "--budget must be at least 1"),
        (["--budget", "2", "--tuned"], "--tuned is for bench run"),
        (["--budget", "2", "--preset", "table1"], "--preset is for bench run"),
        (["--show"], "there is no store in 'results' yet"),
    ],
    ids=str,
)
def test_mistakes_are_one_line(call: Call, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = call("tune", *arguments)
    assert done.exit_code == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_plan_computes_nothing(call: Call, tiny_npz: Path, tmp_path: Path) -> None:
    done = call("tune", "-d", "at,vanilla", "--budget", "7", "--dataset", tiny_npz, *QUICK[:4], "--plan")
    assert done.exit_code == 0, done.stderr
    assert "at: 7 trials, 0 stored; trained on 77 images, judged on 19 held out" in done.stdout
    assert "  at.eps: 1/255, 2/255, 4/255, 8/255\n" in done.stdout
    assert not (tmp_path / "results").exists()


def test_time_that_is_spent_ends_it_and_says_how_it_goes_on(call: Call, tiny_npz: Path) -> None:
    command = [
        "tune",
        "--budget",
        "2",
        "-a",
        "fgsm",
        "--dataset",
        str(tiny_npz),
        "--model",
        "cnn-small",
        "--epochs",
        "1",
    ]
    stopped = call(*command, "--max-forwards", "1")
    assert stopped.exit_code == 3
    assert (
        "stopped: --max-forwards 1 are spent" in stopped.stderr and "Continue with the same command" in stopped.stderr
    )
    done = call(*command, "--json")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["trials"]) == 2
