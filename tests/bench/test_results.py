"""The committed results: every table on a page comes out of the outcomes that lie beside it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import ROOT, Run

from bench.checkpoint import load_tensors
from bench.names import short_name
from bench.pages.make import differences, make_page
from bench.report.scale import comparison, markdown
from bench.scale.record import read_record as read_scale

PAGES = (
    "cifar10-cnn-medium", "cifar10-wrn16-4", "digits-defenses", "events-digits-dvs", "events-n-mnist", "lam-max",
    "leaderboard", "learning-rate",
)  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_outcomes_make(name: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    page = make_page(ROOT / "results" / name)
    assert differences(page) == []
    assert sum(len(texts) for texts in page.texts.values()) >= 2
    # And would not be with one digit changed, in what was printed and in what was written.
    copy = Path(shutil.copytree(page.folder, tmp_path / name))
    for path, place in ((copy / "README.md", r"\d\.\d \["), (copy / "cells.csv", r"\d,")):
        at = [found.start() for found in re.finditer(place, path.read_text())][-1]
        text = path.read_text()
        path.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    readme, csv = differences(replace(page, folder=copy))
    assert readme.startswith(f"{copy / 'README.md'}: bench ")
    assert csv.startswith(f"{copy / 'cells.csv'}: line ")


BOARD = ROOT / "results" / "leaderboard"


def test_the_findings_on_potentials_are_the_evidence_s() -> None:
    rows = re.findall(r"^\| ([a-z+]+) \| (\d+\.\d) \| (\d+\.\d) \|$", (BOARD / "FINDINGS.md").read_text(), re.MULTILINE)
    assert {name for name, *_ in rows} == {path.stem for path in (BOARD / "evidence").glob("*.json")}
    for name, *shown in rows:
        layers = json.loads((BOARD / "evidence" / f"{name}.json").read_text())["membranes"]
        total = sum(layer["neurons"] * len(layer["near"]) for layer in layers)
        shares = [sum(layer["neurons"] * sum(layer[what]) for layer in layers) / total for what in ("near", "rate")]
        assert [f"{100 * share:.1f}" for share in shares] == shown, name


def test_kept_weights_are_of_networks_on_the_leaderboard(bench: Run) -> None:
    pytest.importorskip("pyarrow")
    for outcomes in BOARD.glob("*.parquet"):
        done = bench("import", outcomes)
        assert done.returncode == 0, done.stderr
    kinds = {row["weights"]: row for row in json.loads(bench("table", "--json").stdout)}
    files = sorted((BOARD / "weights").glob("*.safetensors"))
    assert len(files) > 10
    for file in files:
        row = kinds[f"train:{load_tensors(file)[1]['key']}"]
        assert file.stem == f"{row['dataset']}-{short_name(row['defense']).partition(' (')[0]}"
    assert sum(file.stat().st_size for file in files) < 20 << 20


@pytest.mark.parametrize("name", ["digits-tgo+at", "digits-vanilla"])
def test_kept_weights_are_attacked_as_the_page_says(bench: Run, name: str) -> None:
    done = bench("run", "--weights", BOARD / "weights" / f"{name}.safetensors", "-a", "fgsm", "-n", "64", "--json")
    assert done.returncode == 0, done.stderr
    [cell] = json.loads(done.stdout)["cells"]
    assert cell["clean"]["value"] > 0.9
    assert cell["verdict"] == "ok"


def test_every_page_is_on_the_list_and_in_the_index() -> None:
    folders = {path.parent.name for path in (ROOT / "results").glob("*/README.md")}
    assert {path.parent.name for path in (ROOT / "results").glob("*/*.parquet")} == set(PAGES)
    index = (ROOT / "results" / "README.md").read_text()
    assert re.findall(r"^\| \[([^\]]+)\]\(\1/README\.md\) \|", index, re.MULTILINE) == sorted(folders)


@pytest.mark.parametrize("path", sorted((ROOT / "results").rglob("*.md")), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_of_pages_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    assert [t for t in targets if not re.match(r"\w+:", t) and not (path.parent / t).exists()] == []


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
