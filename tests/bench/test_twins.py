"""One recipe with two sets of bits, ours and another machine's: whichever came first, the store is the same."""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from measuring import tiny_request

from bench.audit.finding import Finding
from bench.audit.run import AuditListener, audit_plan
from bench.audit.spec import AuditSpec
from bench.canonical import canonical_json
from bench.errors import ConflictingResultError
from bench.evidence.stored import stored_cell
from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.exchange.merge import merge_bundle
from bench.plan import Request, make_plan
from bench.scheduler import Listener, Report, run_plan
from bench.store import CellRow, Store
from bench.store.schema import Base, Run
from bench.store.twins import TWIN

CPU = torch.device("cpu")
DOUBT = Finding("black box", "suspect", 0.2, 0.03, "random search beats the gradient")


def contents(store: Store) -> dict[str, list[str]]:
    """Every row of every table, without ids and times; a run is what it says."""

    def told(provenance: dict[str, Any]) -> dict[str, Any]:
        imported = {k: v for k, v in provenance.get("imported", {}).items() if k != "when"}
        return provenance | ({"imported": imported} if imported else {})

    found = {}
    with store.reading() as session:
        runs = {run.id: told(run.provenance) for run in session.scalars(sa.select(Run))}
        for table in Base.metadata.sorted_tables:
            if table.name in ("campaigns", "workers", "leases"):
                # Who works on what is no result.
                continue
            rows = []
            for row in session.execute(sa.select(table)).mappings():
                kept = {k: v for k, v in row.items() if k not in ("id", "created", "updated", "run_id")}
                kept |= {"run": runs.get(row["run_id"])} if "run_id" in row else {}
                kept |= {"provenance": told(kept["provenance"])} if "provenance" in kept else {}
                rows.append(canonical_json({k: v.hex() if isinstance(v, bytes) else v for k, v in kept.items()}))
            found[table.name] = sorted(rows)
    return found


def elsewhere(bundle: Bundle) -> Bundle:
    """The same cells on weights that another processor trained: other bits under the same names."""
    data = bundle_json(bundle)
    for key, known in data["weights"].items():
        known["sha256"] = hashlib.sha256(key.encode()).hexdigest()
        known["log"] = []
    return bundle_of_json(data, "theirs")


def trained_here(store: Store, full: Store, rows: list[CellRow]) -> None:
    """What a run does that trains these cells' networks and measures them."""
    run = store.begin_run({"version": "here"})
    for row in rows:
        known, outcome, cell = full.weights(row.weights_key), full.outcome(row.key), stored_cell(row)
        assert known is not None
        assert outcome is not None
        store.record_weights(row.weights_key, known["sha256"], known["spec"], known["log"], 1.0, run)
        if not store.done([row.key]):
            store.begin_cell(cell, run)
            store.add_chunks(0, {cell: outcome}, 1, 1, 1.0)
            store.finish_cell(cell)


def audited(store: Store, row: CellRow) -> None:
    cell = stored_cell(row)
    spec = AuditSpec(cell.weights, cell.model, cell.test_hash, 128, cell.attack.norm, Fraction(row.eps))
    store.record_audit(spec, "suspect", [DOUBT], 1.0, store.begin_run({"version": "an audit"}))


Step = Callable[[Store], object]


def after(folder: Path, *steps: Step) -> Store:
    store = Store(folder / f"{len(list(folder.iterdir()))}.sqlite")
    for step in steps:
        step(store)
    return store


def test_whether_results_come_before_training_or_after_makes_no_difference(full: Store, tmp_path: Path) -> None:
    rows = full.cells()
    audited(full, rows[0])
    theirs = elsewhere(collect_bundle(full, full.cells()))
    ours = [row for row in rows if row.weights_key in (rows[0].weights_key, rows[-1].weights_key)][:5]
    steps: list[Step] = [
        lambda store: merge_bundle(store, theirs, note={"file": "x"}),
        lambda store: trained_here(store, full, ours),
    ]
    before, later = after(tmp_path, *steps), after(tmp_path, *steps[::-1])
    assert contents(before) == contents(later)
    twins = [row for row in before.cells() if row.weights_key.startswith(TWIN)]
    assert len(twins) > len(ours) > 2
    there = {before.provenance(row.key)["imported"]["key"] for row in twins}
    assert there == {parcel.key for parcel in theirs.cells if parcel.weights_key in {row.weights_key for row in ours}}
    # Their audit speaks about their network and not about ours.
    assert {row.verdict for row in twins if row.audit is not None} == {"suspect"}
    assert before.cell(rows[0].key).audit is None
    for store in (before, later):
        merged = merge_bundle(store, theirs, note={"file": "x"})
        assert not merged.added
    assert contents(before) == contents(later)


def test_the_same_bits_trained_here_are_ours_from_then_on(full: Store, tmp_path: Path) -> None:
    rows = full.cells()
    ours = collect_bundle(full, rows[:3])
    steps: list[Step] = [
        lambda store: merge_bundle(store, ours, note={}),
        lambda store: trained_here(store, full, rows[:1]),
    ]
    before, later = after(tmp_path, *steps), after(tmp_path, *steps[::-1])
    assert contents(before)["weights"] == contents(later)["weights"]
    known = full.weights(rows[0].weights_key)
    assert known is not None
    with pytest.raises(ConflictingResultError, match="another device or library version"):
        before.record_weights(rows[0].weights_key, "1" * 64, known["spec"], [], None, 1)


def test_bits_that_were_known_as_a_twin_come_home(full: Store, tmp_path: Path) -> None:
    """Another laboratory holds ours beside its own; we lose our store, take theirs, and train again."""
    mine = collect_bundle(full, full.cells()[:3])
    theirs = Store(tmp_path / "theirs.sqlite")
    for bundle in (elsewhere(mine), mine):
        merge_bundle(theirs, bundle, note={})
    both = collect_bundle(theirs, theirs.cells())
    steps: list[Step] = [
        lambda store: merge_bundle(store, both, note={}),
        lambda store: trained_here(store, full, full.cells()[:3]),
    ]
    before, later = after(tmp_path, *steps), after(tmp_path, *steps[::-1])
    homes = [{row.key: row.weights_key for row in store.cells()} for store in (before, later)]
    assert homes[0] == homes[1]
    assert {parcel.key for parcel in mine.cells} < homes[0].keys()
    assert len(homes[0]) == 6


def test_two_trainings_here_stay_a_conflict_and_change_nothing(full: Store) -> None:
    key, before = full.cells()[0].weights_key, contents(full)
    merge_bundle(full, elsewhere(collect_bundle(full, full.cells()[:2])), note={})
    full_now = contents(full)
    run = full.begin_run({})
    with pytest.raises(ConflictingResultError, match="keep them apart with another --results folder"):
        full.record_weights(key, "1" * 64, {}, [], None, run)
    assert contents(full)["weights"] == full_now["weights"]
    assert set(before["cells"]) < set(full_now["cells"])


def run(results: Path, request: Request) -> Report:
    store, checkpoints = Store(results / "bench.sqlite"), results / "checkpoints"
    plan = make_plan(request, checkpoints, results / "data").known_to(store)
    report = run_plan(plan, store, checkpoints, CPU, Listener())
    store.close()
    return report


def test_imported_cells_answer_a_run_until_it_trains(full: Store, tmp_path: Path, tiny_npz: Path) -> None:
    rows = [row for row in full.cells(defense="vanilla", seed=0, eps="1/10") if row.attack == "fgsm"]
    audited(full, rows[0])
    theirs = elsewhere(collect_bundle(full, full.cells(key=rows[0].key)))
    results = tmp_path / "new"
    store = Store(results / "bench.sqlite")
    merge_bundle(store, theirs, note={})
    asked = run(results, tiny_request(tiny_npz, attacks=("fgsm",)))
    assert (asked.computed, [row.key for row in asked.rows]) == (0, [rows[0].key])
    assert not (results / "checkpoints").exists()
    more = run(results, tiny_request(tiny_npz, attacks=("fgsm", "pgd3")))
    assert not more.failures
    assert (more.computed, len(more.rows)) == (2, 2)
    assert {row.weights_key for row in more.rows} == {rows[0].weights_key}
    (twin,) = [row for row in store.cells() if row.weights_key.startswith(TWIN)]
    assert store.provenance(twin.key)["imported"]["key"] == rows[0].key
    assert "imported" not in store.provenance(rows[0].key)


def test_an_audit_that_trains_is_not_answered_by_another_network_s(full: Store, tmp_path: Path, tiny_npz: Path) -> None:
    row = next(row for row in full.cells(defense="vanilla", seed=0, eps="1/10") if row.attack == "fgsm")
    audited(full, row)
    store = Store(tmp_path / "new" / "bench.sqlite")
    merge_bundle(store, elsewhere(collect_bundle(full, full.cells(key=row.key))), note={})
    checkpoints = tmp_path / "new" / "checkpoints"
    plan = make_plan(tiny_request(tiny_npz, attacks=("fgsm",), eps=("0.1", "0.2")), checkpoints, tmp_path)
    heard: list[Fraction] = []

    class Heard(AuditListener):
        def auditing(self, job: Any, spec: AuditSpec, checks: int) -> None:
            heard.append(spec.eps)

    checkpoints.mkdir(parents=True)
    report = audit_plan(plan, store, checkpoints, CPU, Heard(), 128)
    assert not report.failures
    assert heard == [Fraction(1, 10), Fraction(1, 5)]
