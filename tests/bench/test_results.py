"""The committed results: every table on a page comes out of the outcomes that lie beside it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from support import ROOT, Run

from bench.report.scale import comparison, markdown
from bench.scale.record import read_record as read_scale

PAGES = ("digits-defenses", "cifar10-cnn-medium", "cifar10-wrn16-4", "events-n-mnist", "events-digits-dvs")


@pytest.mark.parametrize("name", PAGES)
def test_tables_and_tests_come_out_of_the_outcomes(bench: Run, tmp_path: Path, name: str) -> None:
    pytest.importorskip("pyarrow")
    page = ROOT / "results" / name
    done = bench("import", page / "outcomes.parquet")
    assert done.returncode == 0, done.stderr
    text = (page / "README.md").read_text()
    block = text.split("<!-- regenerates -->\n```sh\n")[1].split("```")[0]
    commands = [shlex.split(line) for line in block.splitlines() if not line.startswith("bench import")]
    assert len(commands) >= 4
    for command, *arguments in commands:
        assert command == "bench"
        shown = bench(*arguments)
        assert shown.returncode == 0, shown.stderr
        if "-o" not in arguments:
            assert shown.stdout.strip() in text, arguments
    assert (tmp_path / "cells.csv").read_text() == (page / "cells.csv").read_text()


SPEED = ROOT / "results" / "perf"
SHOWN = re.findall(r"<!-- shows: (\S+) -->\n(.*?)\n<!-- end -->", (SPEED / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("file", "text"), SHOWN, ids=[file for file, _ in SHOWN])
def test_speeds_come_out_of_the_runs(bench: Run, file: str, text: str) -> None:
    done = bench("perf", "--show", SPEED / file, "--format", "md")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip() == text


def test_every_run_of_speed_is_shown() -> None:
    assert {file for file, _ in SHOWN} == {file.name for file in SPEED.glob("*.json") if "growth" not in file.name}


def test_the_page_of_estimates_comes_out_of_their_record() -> None:
    from bench.costs.pairs import page

    folder = ROOT / "results" / "estimates"
    record = json.loads((folder / "pairs.json").read_text())
    assert page(record) in (folder / "README.md").read_text()
    assert len(record["pairs"]) > 9


SCALE = ROOT / "results" / "scale"
GROWN = re.findall(
    r"<!-- shows: (\S+?)(?: beside (\S+))? -->\n(.*?)\n<!-- end -->", (SCALE / "README.md").read_text(), re.DOTALL
)


@pytest.mark.parametrize(("file", "before", "text"), GROWN, ids=[f"{file} {before}" for file, before, _ in GROWN])
def test_growth_comes_out_of_the_runs(file: str, before: str, text: str) -> None:
    record = read_scale(SCALE / file)
    lines = comparison(read_scale(SCALE / before), record) if before else markdown(record)
    assert "\n".join(lines) == text


def test_every_run_of_growth_is_shown() -> None:
    assert {name for file, before, _ in GROWN for name in (file, before) if name} == {
        file.name for file in SCALE.glob("*.json")
    }
