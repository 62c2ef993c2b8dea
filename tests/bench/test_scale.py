"""Large plans and stores: the fast ways give what the slow ones did, and nothing is listed that nobody can read."""

import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Run, environment, make_cell

from bench.audit.finding import Finding
from bench.audit.spec import AuditSpec
from bench.canonical import canonical_json
from bench.cli import list_
from bench.costs.history import history
from bench.errors import BenchError
from bench.estimate import Estimate
from bench.names import without_eot
from bench.plan import Plan, Request, make_plan, together
from bench.report import plan as report_plan
from bench.report import run as report_run
from bench.report.plan import plan_json, print_plan
from bench.report.run import is_bad, next_commands, print_results, results_json
from bench.scale.fill import fill, is_left_out
from bench.scale.measure import bytes_of
from bench.scale.record import read_record
from bench.scale.run import measure_growth
from bench.scale.subject import plan_of, size_of, write_images
from bench.scale.writers import measure_writers
from bench.scheduler import Report
from bench.selection import chosen_cells
from bench.spec import TrainSpec, identity_of, key_of, trajectory_key
from bench.store import Store
from bench.store import store as storing
from bench.store.rows import Stored

IMAGES, CELLS = 256, 1000


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), IMAGES)


@pytest.fixture(scope="module")
def planned(images: Path) -> Plan:
    return plan_of(size_of(CELLS, IMAGES), images)


@pytest.fixture(scope="module")
def filled(planned: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Read only."""
    opened = Store(tmp_path_factory.mktemp("filled") / "bench.sqlite")
    fill(opened, planned, frozenset(), chunks_a_cell=0.5, size=lambda: bytes_of(opened))
    yield opened
    opened.close()


def slow_key(spec: object) -> str:
    return hashlib.sha256(canonical_json(identity_of(spec)).encode()).hexdigest()


def test_keys_are_those_of_the_plain_identity(planned: Plan) -> None:
    for cell in planned.cells[::7]:
        assert key_of(cell) == slow_key(cell)
        assert key_of(cell.attack) == slow_key(cell.attack)
    for job in planned.jobs:
        assert key_of(job.spec) == slow_key(job.spec)
        assert key_of(job.spec.model) == slow_key(job.spec.model)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(
    params=st.dictionaries(st.text(), _VALUES | st.fractions(), max_size=4),
    label=st.text(),
    number=st.integers(),
    arithmetic=st.sampled_from(["fast", "bf16"]),
    defense=st.lists(st.dictionaries(st.text(), _VALUES, max_size=3), max_size=2),
)
def test_keys_of_any_values_are_those_of_the_plain_identity(
    params: dict[str, Any], label: str, number: int, arithmetic: str, defense: list[Mapping[str, Any]]
) -> None:
    cell = make_cell()
    attack = replace(cell.attack, params=tuple(sorted(params.items())), surrogate=label, arithmetic=arithmetic)
    other = replace(cell, weights=label, attack_seed=number, attack=attack, noise_version=2)
    assert key_of(other) == slow_key(other)
    assert key_of(replace(other, defense_name=label)) == key_of(other)
    recipe = make_train(label, tuple(defense))
    assert key_of(recipe) == slow_key(recipe)


def make_train(label: str, defense: tuple[Mapping[str, Any], ...]) -> TrainSpec:
    from bench.spec import Recipe

    return TrainSpec(make_cell().model, Recipe(1, 64), defense, label, 0, Fraction(1, 10), label, label)


def test_a_kept_key_is_not_taken_over_by_what_is_made_from_a_spec() -> None:
    cell = make_cell()
    assert key_of(cell) != key_of(replace(cell, n=cell.n + 1)) == slow_key(replace(cell, n=cell.n + 1))
    assert key_of(replace(cell)) == key_of(cell)
    assert cell == replace(cell)
    assert hash(cell) == hash(replace(cell))


def arranged_slowly(plan: Plan) -> list[list[list[str]]]:
    """The cells of every network grouped by `trajectory_key`."""
    found = []
    for job in plan.jobs:
        groups: dict[str, dict[str, None]] = {}
        for cell in job.cells:
            groups.setdefault(trajectory_key(cell), {})[key_of(cell)] = None
        found.append([list(group) for group in groups.values()])
    return found


def test_attacks_are_grouped_as_single_cells_would_be(tiny_npz: Path, tmp_path: Path) -> None:
    attacks = ("fgsm", "pgd3:eot=2", "pgd3", "pgd5", "pgd5:restarts=2", "pgd7:early_stop=true", "apgd5")
    request = Request(
        defenses=("vanilla", "nlif", "tgo"), attacks=attacks, seeds=(0, 1), eps=("0.1", "0.2"), dataset=str(tiny_npz)
    )
    plan = make_plan(request, tmp_path, tmp_path)
    assert len(plan.jobs) == 6
    for job, slow in zip(plan.jobs, arranged_slowly(plan), strict=True):
        assert [[key_of(cell) for cell in group] for group in job.trajectories] == slow
        assert len(set(map(key_of, job.cells))) == len(job.cells)
        for cell in job.cells:
            assert cell.weights == job.weights_key
            noisy = job.spec.model.neuron.kind != "lif"
            assert noisy or cell.attack.eot == 1
            assert noisy or without_eot(cell.attack.name) == cell.attack.name
            assert not (noisy and dict(cell.attack.params).get("early_stop"))
    steps = [max(cell.attack.steps for cell in group) for group in plan.jobs[0].trajectories]
    assert steps == sorted(steps)
    assert {key_of(cell) for cell in together([plan, plan]).cells} == {key_of(cell) for cell in plan.cells}


def test_a_plan_holds_what_networks_share_once(planned: Plan) -> None:
    plain = [job for job in planned.jobs if job.spec.model.neuron.kind == "lif"]
    assert len({id(cell.attack) for job in plain for cell in job.cells}) == len(plain[0].cells)
    assert len({id(cell.model) for job in plain for cell in job.cells}) <= len({job.spec.defense_name for job in plain})


def test_synthetic_rows_are_what_a_run_would_leave_and_are_marked(filled: Store, planned: Plan) -> None:
    rows = {row.key: row for row in filled.cells()}
    assert set(rows) == {key for key in map(key_of, planned.cells) if not is_left_out(key)}
    for cell in planned.cells[::9]:
        if not is_left_out(key_of(cell)):
            row = rows[key_of(cell)]
            assert hashlib.sha256(canonical_json(dict(row.spec)).encode()).hexdigest() == row.key
            assert (row.attack, row.defense, row.seed) == (cell.attack.name, cell.defense_name, cell.seed)
            assert filled.provenance(row.key)["synthetic"] is True
    with filled.reading() as session:
        key = session.scalar(sa.select(storing.Chunk.cell_key))
    assert key is not None
    outcome = filled.outcome(key)
    assert outcome is not None
    assert outcome.n == IMAGES
    assert {row.audit is None for row in rows.values()} == {True, False}


@pytest.mark.parametrize(("many", "ratio"), [(10**9, 5), (0, 10**9), (0, 0)], ids=["looked up", "all read", "too few"])
def test_finished_keys_are_those_of_finished_cells(
    filled: Store, planned: Plan, monkeypatch: pytest.MonkeyPatch, many: int, ratio: int
) -> None:
    monkeypatch.setattr(storing, "_MANY_KEYS", many)
    monkeypatch.setattr(storing, "_KEYS_READ_FOR_ONE_FOUND", ratio)
    monkeypatch.setattr(storing, "_KEYS_A_QUERY", 100)
    keys = [key_of(cell) for cell in planned.cells]
    assert filled.done_keys(keys) == {key for key in keys if not is_left_out(key)}
    some = [*keys[::13], "no such key", keys[0]]
    assert filled.done_keys(iter(some)) == set(filled.done(some)) == {k for k in some[:-2] if not is_left_out(k)}
    assert filled.done_keys([]) == set()


def test_a_cell_that_is_not_finished_is_missing(store: Store) -> None:
    cell = make_cell(n=128)
    run = store.begin_run({})
    store.record_weights(cell.weights, "0" * 64, {}, [], None, run)
    store.begin_cell(cell, run)
    assert store.done_keys([key_of(cell)]) == set()
    store.fail_cell(cell, "boom")
    assert store.done_keys([key_of(cell)]) == set()
    assert [(kind.status, kind.verdict, kind.cells) for kind in store.kinds(None)] == [("failed", None, 1)]
    assert store.kinds() == store.names() == []


def test_a_plan_knows_what_is_missing(filled: Store, planned: Plan) -> None:
    known = planned.known_to(filled)
    assert [key_of(cell) for cell in known.missing] == [k for k in map(key_of, planned.cells) if is_left_out(k)]
    assert len(known.missing) + len(known.stored) == len(planned.cells)
    assert planned.stored == frozenset()


_CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "defenses": st.lists(st.sampled_from(["at", "vanilla", "nlif", "mc+at"]), min_size=1),
        "attacks": st.lists(st.sampled_from(["fgsm", "pgd40", "pgd10:loss=margin", "square100"]), min_size=1),
        "dataset": st.sampled_from(["synthetic", "digits"]),
        "model": st.sampled_from(["cnn-small", "vgg11"]),
        "eps": st.sampled_from(["1/1000", "0.001", "0.3"]),
        "norm": st.sampled_from(["linf", "l2"]),
        "seed": st.integers(0, 5),
    },
)


@settings(deadline=None, max_examples=40)
@given(choice=_CHOICES, seeks=st.sampled_from([0, 10_000]))
def test_what_is_chosen_in_the_database_is_what_a_loop_chooses(
    filled: Store, choice: dict[str, Any], seeks: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "_MOST_SEEKS", seeks)
        found = []
        with contextlib.suppress(BenchError):
            found = [row.key for row in chosen_cells(filled, **choice)]
    wanted = dict(choice)
    defenses, attacks = wanted.pop("defenses", None), wanted.pop("attacks", None)
    if "eps" in wanted:
        wanted["eps"] = str(Fraction(wanted["eps"]))
    assert found == [
        row.key
        for row in filled.cells()
        if (defenses is None or row.defense in defenses)
        and (attacks is None or row.attack in attacks)
        and all(getattr(row, name) == value for name, value in wanted.items())
    ]


def test_who_mistypes_a_name_is_told_what_there_is(filled: Store) -> None:
    with pytest.raises(BenchError, match="no finished cell has the defense 'ta'; stored are at, mc, "):
        chosen_cells(filled, defenses=["ta"])
    with pytest.raises(BenchError, match="no cell has the attack 'pgd4'"):
        chosen_cells(filled, attacks=["pgd4"], status=None)


def test_kinds_are_counted(filled: Store, planned: Plan) -> None:
    counted = Counter((row.defense, row.attack) for row in filled.cells())
    assert {(kind.defense, kind.attack): kind.cells for kind in filled.kinds()} == counted
    assert [(n.defense, n.attack) for n in filled.names()] == sorted(counted)
    some = [key_of(cell) for cell in planned.cells[::3]]
    assert sum(kind.cells for kind in filled.kinds(None, some)) == len(filled.done_keys(some))


def test_few_and_many_networks_have_their_audits(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    few = filled.cells()
    monkeypatch.setattr("bench.store.rows._FEW_WEIGHTS", 0)
    assert filled.cells() == few
    assert len({row.weights_key for row in few if row.audit}) == len({row.weights_key for row in few}) // 5


def test_an_audit_of_the_same_bits_under_another_key_is_found(store: Store) -> None:
    one, two = make_cell(n=128, weights="train:a"), make_cell(n=128, weights="train:b")
    run = store.begin_run({})
    for cell in (one, two):
        store.record_weights(cell.weights, "0" * 64, {}, [], None, run)
        store.begin_cell(cell, run)
    spec = AuditSpec("train:b", one.model, one.test_hash, 128, "linf", Fraction(8, 255))
    store.record_audit(spec, "suspect", [Finding("eot", "suspect", 0.2, 0.0, "why")], 1.0, run)
    from test_store import outcome

    store.add_chunks(0, {one: outcome(128)}, 1, 1, 1.0)
    row = store.finish_cell(one)
    assert row.audit is not None
    assert row.verdict == "suspect"


def test_a_stored_spec_is_read_when_it_is_looked_into(filled: Store) -> None:
    row = filled.cells(seed=0, defense="at")[0]
    assert isinstance(row.spec, Stored)
    assert row.spec._text is not None
    assert row.spec["n"] == IMAGES
    assert row.spec._text is None
    again = filled.cell(row.key)
    assert again == row
    assert dict(again.spec) == row.spec | {}
    assert repr(again.spec) == repr(dict(row.spec))
    assert set(row.spec) == set(again.spec)
    assert row.stops_early is False


def test_no_question_reads_every_cell(filled: Store, planned: Plan) -> None:
    """By what SQLite says it would do: a scan of the table is one that no index covers."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    sa.event.listen(filled.engine, "before_cursor_execute", note)
    key = key_of(planned.cells[0])
    try:
        filled.done_keys([key])
        filled.done([key])
        filled.kinds(None)
        filled.kinds()
        filled.names()
        chosen_cells(filled, defenses=["at"], attacks=["pgd40"], eps="1/1000")
        chosen_cells(filled, eps="1/1000", seed=1)
        history(filled, "synthetic")
        filled.origins([key])
        filled.outcome(key)
        filled.cell(filled.cells(seed=0, attack="fgsm")[0].key[:12])
    finally:
        sa.event.remove(filled.engine, "before_cursor_execute", note)
    assert len(asked) > 15
    with filled.engine.connect().execution_options(reading=True) as connection:
        for statement, parameters in asked:
            for *_, step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                assert not step.startswith("SCAN cells") or "INDEX" in step, statement


def test_a_large_plan_is_counted_and_its_json_is_complete(
    filled: Store, planned: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    known = planned.known_to(filled)
    print_plan([known], Estimate(7200.0, "stored runs"))
    said = capsys.readouterr().out
    assert f"synthetic: {CELLS} cells, {len(known.stored)} stored" in said
    assert said.count("\n") < 110
    assert "About 2.0 h" in said
    (numbers,) = (line.split()[1:] for line in said.splitlines() if line.startswith(" at "))
    missing = sum(cell.defense_name == "at" for cell in known.missing)
    assert numbers == ["100", str(100 - missing), "0", str(missing)]
    assert len(plan_json([known], Estimate(1.0, "x"))["cells"]) == CELLS


def test_a_small_plan_is_counted_by_attack(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report_plan, "MOST_LINES", 3)
    plan = make_plan(Request(attacks=("fgsm", "pgd3"), eps=("0.1", "0.2"), dataset=str(tiny_npz)), tmp_path, tmp_path)
    print_plan([plan], Estimate(1.0, "a short trial"))
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["vanilla", "fgsm", "2", "0", "0", "2"] in said
    assert ["vanilla", "pgd3", "2", "0", "0", "2"] in said


def test_a_large_run_ends_with_counts(filled: Store, planned: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [key_of(cell) for cell in planned.cells]
    report = Report([f"at under pgd{number}: boom" for number in range(9)], 5, keys=keys, store=filled)
    print_results(planned, report, "here.sqlite")
    next_commands(report, "", " --store here.sqlite")
    said = capsys.readouterr().out
    done = len(filled.done_keys(keys))
    assert f"synthetic: {CELLS} cells, 5 computed now, {CELLS - done} not begun" in said
    assert said.count("failed at under") == 6
    assert "and 3 further failures" in said
    assert "bench table -d at -a " in said
    assert said.count("\n") < 30
    assert "rows" not in vars(report), "a row of each cell was loaded"
    assert is_bad(report)
    assert not is_bad(Report([], 5, keys=keys, store=filled))
    assert len(results_json(report, "here")["cells"]) == done


def test_an_invalid_cell_of_a_large_run_is_bad(planned: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_run, "MOST_LINES", 0)
    fill(store, planned, frozenset(map(key_of, planned.cells[50:])), chunks_a_cell=0, size=lambda: 0)
    report = Report([], 0, keys=[key_of(cell) for cell in planned.cells[:50]], store=store)
    assert not is_bad(report)
    with store.writing() as session:
        session.execute(sa.text("UPDATE cells SET verdict = 'invalid' WHERE key = :key"), {"key": filled_key(store)})
    assert is_bad(Report([], 0, keys=report.keys, store=store))


def filled_key(opened: Store) -> str:
    return opened.cells()[0].key


def test_a_long_list_is_counted_unless_some_are_chosen(
    filled: Store, bench: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(list_, "_MOST_CELLS", 100)
    list_.list_("runs", store=filled.target)
    said = capsys.readouterr().out
    assert f"{len(filled.cells())} cells in" in said
    assert "Too many to list" in said
    assert said.count("\n") < 110
    list_.list_("runs", store=filled.target, defense=["at"], attack=["fgsm"])
    assert "Too many" not in capsys.readouterr().out
    chosen = bench("ls", "runs", "-d", "at", "-a", "fgsm", "--json", "--store", filled.target)
    assert len(json.loads(chosen.stdout)) == len(filled.cells(defense="at", attack="fgsm"))
    assert "chooses among runs" in bench("ls", "attacks", "-d", "at").stderr


def test_a_table_chooses_by_defense_and_attack(filled: Store, bench: Run) -> None:
    shown = bench("table", "-d", "at,vanilla", "-a", "pgd40", "--format", "csv", "--store", filled.target)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("\n") == 1 + len(filled.cells(defense=["at", "vanilla"], attack="pgd40"))
    wrong = bench("table", "table1", "-d", "at", "--store", filled.target)
    assert wrong.returncode == 2
    assert "leave out --defense" in wrong.stderr


def test_growth_is_measured_kept_and_shown(tmp_path: Path) -> None:
    target, path = str(tmp_path / "grow.sqlite"), tmp_path / "scale.json"
    record = measure_growth(
        target, (250, 500), n=IMAGES, chunks_a_cell=0.5, command="python -m bench.scale", writers=(),
        keep=lambda record: record.write(path),
    )  # fmt: skip
    assert read_record(path) == record
    assert [stage.cells for stage in record.stages] == [250, 500]
    for stage in record.stages:
        assert not [measure.error for measure in stage.measures.values() if measure.error]
        assert stage.measures["resume"].about["missing"] == stage.cells - sum(
            s.measures["fill"].about["cells"] for s in record.stages if s.cells <= stage.cells
        )
    store = Store(target)
    assert len(store.cells()) == 500 - record.stages[1].measures["resume"].about["missing"], "what was written stayed"
    again = [sys.executable, "-m", "bench.scale", "--show", str(path)]
    shown = subprocess.run(again, capture_output=True, text=True, env=environment(), check=True).stdout
    assert "| resume |" in shown
    assert "(computed)" in shown
    beside = subprocess.run(
        [*again, "--before", str(path)], capture_output=True, text=True, env=environment(), check=True
    )
    assert "| 1.0 |" in beside.stdout
    refused = subprocess.run(
        [*again[:3], "--store", target, "-o", str(path), "--cells", "250"],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert refused.stderr.endswith("is not empty; synthetic rows go into one of their own\n")
    store.close()


def test_writers_leave_nothing(filled: Store, planned: Plan, tmp_path: Path) -> None:
    opened = Store(tmp_path / "writers.sqlite")
    fill(opened, planned, frozenset(), chunks_a_cell=0, size=lambda: 0)
    cells = [cell for cell in planned.cells if is_left_out(key_of(cell))]
    measured = measure_writers(opened.target, cells[:6], 2, seconds=0.3)
    assert measured.about["commits"] > 0
    assert not opened.done([key_of(cell) for cell in cells])
    assert len(opened.cells()) == len(planned.cells) - len(cells)
    opened.close()


def test_sizes_grow_in_whole_plans() -> None:
    stages = [size_of(cells, 1) for cells in (1000, 10_000, 100_000, 1_000_000)]
    assert [stage.cells for stage in stages] == [1000, 10_000, 100_750, 1_000_000]
    for small, large in itertools.pairwise(stages):
        assert small.networks <= large.networks and small.attacks <= large.attacks
    with pytest.raises(BenchError, match="at least 250"):
        size_of(10, 1)
