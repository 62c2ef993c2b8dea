"""Stores made one: without loss, without collisions, and nothing written where something is wrong."""

import base64
import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Run, environment

from bench.canonical import canonical_json
from bench.errors import BenchError, ConflictingResultError
from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.exchange.files import read_results, write_results
from bench.exchange.merge import merge_bundle
from bench.outcome import Outcome
from bench.respec import cell_from_json
from bench.store import Store
from bench.store.twins import TWIN

SUFFIXES = (".json", ".json.gz", ".parquet")


def bundle(store: Store) -> Bundle:
    return collect_bundle(store, store.cells())


def state(store: Store) -> dict[str, Any]:
    """All that a store says of its cells."""
    found = {}
    for row in store.cells():
        outcome = store.outcome(row.key)
        assert outcome is not None
        origin = {k: v for k, v in store.provenance(row.key).items() if k not in ("run", "started", "imported")}
        found[row.key] = (row.summary, row.verdict, row.flags, outcome.pack(), origin, row.updated, row.defense)
    return found


def written(path: Path, whole: Bundle) -> Path:
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    write_results(path, whole)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_store_goes_through_a_file_without_loss(full: Store, tmp_path: Path, suffix: str) -> None:
    read = read_results(written(tmp_path / f"x{suffix}", bundle(full)))
    other = Store(tmp_path / "other.sqlite")
    merged = merge_bundle(other, read, note={"file": "x"})
    assert len(merged.added) == len(full.cells()) > 10
    assert state(other) == state(full)
    assert bundle_json(bundle(other))["weights"] == bundle_json(bundle(full))["weights"]
    provenance = other.provenance(merged.added[0])
    assert provenance["imported"]["file"] == "x"
    again = merge_bundle(other, read, note={})
    assert not again.added
    assert sorted(again.known) == sorted(merged.added)
    assert state(other) == state(full)


def test_merging_in_either_order_gives_the_same(full: Store, tmp_path: Path) -> None:
    cells = full.cells()
    halves = [collect_bundle(full, cells[:7]), collect_bundle(full, cells[5:])]
    stores = [Store(tmp_path / name) for name in ("a.sqlite", "b.sqlite")]
    for store, order in zip(stores, (halves, halves[::-1]), strict=True):
        for half in order:
            merge_bundle(store, half, note={})
    assert state(stores[0]) == state(stores[1]) == state(full)


def test_a_recipe_that_rounds_differently_elsewhere_is_kept_apart(full: Store, tmp_path: Path) -> None:
    """The same training key with other bits, as another processor gives."""
    data = bundle_json(bundle(full))
    for key in data["weights"]:
        data["weights"][key]["sha256"] = hashlib.sha256(key.encode()).hexdigest()
    theirs = bundle_of_json(data, "theirs")
    before = state(full)
    merged = merge_bundle(full, theirs, note={})
    assert len(merged.twins) == len(merged.added) == len(before)
    now = state(full)
    assert {key: now[key] for key in before} == before
    for here, there in merged.twins.items():
        assert full.cell(here).weights_key.startswith(TWIN)
        assert full.provenance(here)["imported"]["key"] == there
        assert now[here][3] == before[there][3]
    assert not merge_bundle(full, theirs, note={}).added


def test_other_outcomes_of_a_known_cell_are_a_conflict_and_nothing_is_written(full: Store, tmp_path: Path) -> None:
    data = bundle_json(bundle(full))
    other = Store(tmp_path / "other.sqlite")
    merge_bundle(other, bundle_of_json({**data, "cells": data["cells"][-1:]}, "x"), note={})
    packed = data["cells"][-1]["outcome"]
    outcome = Outcome.unpack(base64.b64decode(packed))
    flipped = Outcome(
        outcome.clean, ~outcome.last, outcome.best, outcome.margin_clean, outcome.margin_last, outcome.flags
    )
    data["cells"][-1]["outcome"] = base64.b64encode(flipped.pack()).decode()
    before = state(other)
    with pytest.raises(ConflictingResultError, match="160 of 160 images differ under attack; nothing was imported"):
        merge_bundle(other, bundle_of_json(data, "x"), note={})
    assert state(other) == before


def test_an_unfinished_cell_is_completed_by_the_finished_one(full: Store, tmp_path: Path) -> None:
    import sqlite3

    other = Store(tmp_path / "other.sqlite")
    merge_bundle(other, bundle(full), note={})
    other.close()
    with sqlite3.connect(tmp_path / "other.sqlite") as raw:
        raw.execute("UPDATE cells SET status = 'running', clean_hits = NULL")
    other = Store(tmp_path / "other.sqlite")
    assert len(merge_bundle(other, bundle(full), note={}).added) == len(full.cells())
    assert state(other) == state(full)


def test_an_import_into_a_cell_that_is_being_measured_leaves_it_whole(full: Store, tmp_path: Path) -> None:
    """A run has stored its first images when the import finishes the cell; then the run stores the next."""
    row = full.cells()[0]
    whole = full.outcome(row.key)
    assert whole is not None
    cell = cell_from_json(
        row.spec, dataset=row.dataset, defense_name=row.defense, seed=row.seed, attack_name=row.attack
    )  # fmt: skip
    other, weights = Store(tmp_path / "other.sqlite"), full.weights(row.weights_key)
    assert weights is not None
    run = other.begin_run({})
    other.record_weights(row.weights_key, weights["sha256"], weights["spec"], [], None, run)
    assert not other.begin_cell(cell, run)
    other.add_chunks(0, {cell: whole.part(0, 64)}, 1, 1, 1.0)
    merge_bundle(other, collect_bundle(full, [row]), note={})
    other.add_chunks(64, {cell: whole.part(64, 64)}, 1, 1, 1.0)
    other.add_chunks(128, {cell: whole.part(128, 32)}, 1, 1, 1.0)
    assert other.finish_cell(cell).summary == row.summary
    held = other.outcome(row.key)
    assert held is not None
    assert held.pack() == whole.pack()
    with pytest.raises(ConflictingResultError, match="nothing was overwritten"):
        other.add_chunks(64, {cell: whole.part(0, 64)}, 1, 1, 1.0)


def test_a_network_that_comes_home_as_another_s_twin_is_no_second_one(full: Store, tmp_path: Path) -> None:
    """Ours goes to a store that holds the recipe with other bits, and from there, as a twin, back to us."""
    ours = bundle(full)
    data = bundle_json(ours)
    for key in data["weights"]:
        data["weights"][key]["sha256"] = hashlib.sha256(key.encode()).hexdigest()
    theirs = Store(tmp_path / "theirs.sqlite")
    merge_bundle(theirs, bundle_of_json(data, "theirs"), note={})
    merge_bundle(theirs, ours, note={})
    here = Store(tmp_path / "here.sqlite")
    merge_bundle(here, ours, note={})
    merged = merge_bundle(here, bundle(theirs), note={})
    assert len(merged.known) == len(ours.cells)
    assert len(here.cells()) == 2 * len(ours.cells)


def damaged(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    cell = data["cells"][0]
    if kind == "key":
        cell["key"] = "0" * 64
    elif kind == "eps":
        cell["spec"]["attack"]["eps"] = "1/1000"
    elif kind == "images":
        outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
        cell["outcome"] = base64.b64encode(outcome.part(0, outcome.n - 1).pack()).decode()
    elif kind == "outcome":
        cell["outcome"] = base64.b64encode(b"nothing").decode()
    elif kind == "weights":
        data["weights"] = {}
    elif kind == "twice":
        data["cells"].append(cell)
    elif kind == "newer":
        data["version"] = 99
    elif kind == "foreign":
        data["format"] = "another program's"
    elif kind == "missing":
        del cell["labels"]
    elif kind == "nan":
        cell["seconds"] = float("nan")
    elif kind == "huge":
        cell["forwards"] = 10**30
    elif kind == "letters":
        cell["labels"]["attack"] = "\ud800"
    elif kind == "label":
        cell["labels"]["seed"] = "none"
    elif kind == "sha":
        data["weights"][cell["spec"]["weights"]]["sha256"] = "?"
    elif kind == "recipe":
        data["weights"][cell["spec"]["weights"]]["spec"]["recipe"] = True
    elif kind in ("fraction", "neuron", "bomb"):
        if kind == "fraction":
            cell["spec"]["attack"]["eps"] = "1/0"
        elif kind == "neuron":
            cell["spec"]["model"]["neuron"] = []
        else:
            body = zlib.compress(bytes(50_000_000))
            header = np.array([1, cell["spec"]["n"], cell["spec"]["draws"]], "<u4").tobytes()
            cell["outcome"] = base64.b64encode(header + body).decode()
        cell["key"] = hashlib.sha256(canonical_json(cell["spec"]).encode()).hexdigest()
    return data


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("key", "not what its key says"),
        ("eps", "not what its key says"),
        ("images", "holds 159 images instead of 160"),
        ("outcome", "not a packed outcome"),
        ("weights", "has no record of its weights"),
        ("twice", "holds a cell twice"),
        ("newer", "newer release"),
        ("foreign", "is not a file of results"),
        ("missing", "it lacks 'labels'"),
        ("nan", "Out of range float values"),
        ("huge", "is no count"),
        ("letters", "surrogates not allowed"),
        ("label", "labels of cell"),
        ("sha", "is no SHA-256"),
        ("recipe", "is damaged"),
        ("fraction", "is damaged"),
        ("neuron", "is damaged"),
        ("bomb", "holds more than 160 images"),
    ],
)
def test_a_file_that_lies_is_refused_in_a_line(
    bench: Run, full: Store, tmp_path: Path, kind: str, complaint: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(damaged(kind, bundle_json(bundle(full)))))
    with pytest.raises(BenchError, match=complaint) as refused:
        read_results(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_a_file_is_refused(full: Store, tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"x{suffix}", bundle(full))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BenchError, match="is not a"):
        read_results(path)
    with pytest.raises(BenchError, match="cannot read"):
        read_results(tmp_path / f"absent{suffix}")
    with pytest.raises(BenchError, match="must end in"):
        write_results(tmp_path / "x.txt", bundle(full))


@pytest.mark.parametrize("suffix", [".json.gz", ".parquet"])
def test_a_small_file_that_unpacks_to_an_enormous_one_is_refused(
    full: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    path = written(tmp_path / f"x{suffix}", bundle(full))
    for module in ("bundle", "parquet"):
        monkeypatch.setattr(f"bench.exchange.{module}.LARGEST", 20_000)
    with pytest.raises(BenchError, match="unpacks to over"):
        read_results(path)


def test_a_nest_of_brackets_and_an_endless_number_are_refused(tmp_path: Path) -> None:
    for text in ("[" * 100_000, '{"format": ' + "9" * 10_000 + "}"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(BenchError, match="is not a file of results"):
            read_results(tmp_path / "x.json")


def test_from_the_command_line(bench: Run, results: Path, tmp_path: Path) -> None:
    done = bench("export", "x.json.gz", "-d", "at", "-a", "fgsm")
    assert done.returncode == 0, done.stderr
    assert "wrote 4 cells on 2 networks" in done.stdout
    taken = bench("import", "x.json.gz", "--store", "new.sqlite")
    assert taken.returncode == 0, taken.stderr
    assert "4 cells added, 0 were here already" in taken.stdout
    assert "0 cells added, 4 were here already" in bench("import", "x.json.gz", "--store", "new.sqlite").stdout
    shown = bench("table", "--store", "new.sqlite", "--format", "md")
    assert "| at | 0 |" in shown.stdout


def test_eight_processes_that_import_at_once_lose_nothing(full: Store, tmp_path: Path) -> None:
    cells = full.cells()
    code = (
        "import sys; from pathlib import Path; from bench.exchange.files import read_results;"
        "from bench.exchange.merge import merge_bundle; from bench.store import Store;"
        "merge_bundle(Store(sys.argv[1]), read_results(Path(sys.argv[2])), note={})"
    )
    target, running = tmp_path / "all.sqlite", []
    for i in range(8):
        part = tmp_path / f"{i}.json"
        write_results(part, collect_bundle(full, {row.key: row for row in [*cells[i::8], *cells[:2]]}.values()))
        command = [sys.executable, "-c", code, str(target), str(part)]
        running.append(subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True))
    for process in running:
        assert process.wait(timeout=120) == 0, process.stderr.read() if process.stderr else ""
    assert state(Store(target)) == state(full)


def test_outcomes_of_any_shape_survive(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for n, draws in ((1, 1), (7, 3), (129, 5)):
        bits = [random.integers(0, 2, (n, draws)).astype(bool) for _ in range(3)]
        margins = [random.normal(0, 1, n).astype(np.float32) for _ in range(2)]
        outcome = Outcome(*bits, *margins, random.integers(0, 64, n).astype(np.uint8))
        assert Outcome.unpack(outcome.pack()).pack() == outcome.pack()
