"""The database: idempotent, conflict-proof, safe under eight writers."""

import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from postgres import NewDatabase
from support import make_cell

from bench.audit.finding import Finding
from bench.audit.spec import AuditSpec
from bench.errors import BenchError, ConflictingResultError
from bench.outcome import Flag, Outcome
from bench.spec import CellSpec, key_of
from bench.store import Store
from bench.store.schema import Base


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--store` may be given, with nothing in it yet."""
    if request.param == "sqlite":
        return str(tmp_path / "bench.sqlite")
    new: NewDatabase = request.getfixturevalue("postgres")
    return new()


@pytest.fixture
def store(target: str) -> Iterator[Store]:
    opened = Store(target)
    yield opened
    opened.close()


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[Store]:
    """One that is an SQLite file."""
    opened = Store(tmp_path / "bench.sqlite")
    yield opened
    opened.close()


def outcome(n: int, seed: int = 0, draws: int = 1) -> Outcome:
    random = np.random.default_rng(seed)
    clean = random.random((n, draws)) < 0.9
    last = random.random((n, draws)) < 0.5
    margin = random.normal(size=n).astype(np.float32)
    best = last & (random.random((n, draws)) < 0.8)
    return Outcome(clean, last, best, margin, margin - np.float32(1), np.zeros(n, np.uint8))


def prepared(store: Store, *cells: CellSpec) -> int:
    run = store.begin_run({"version": "test"})
    for cell in cells:
        store.record_weights(cell.weights, "0" * 64, {}, [], None, run)
        store.begin_cell(cell, run)
    return run


def test_rates_are_those_of_the_stored_outcomes(store: Store) -> None:
    cell = make_cell(draws=3)
    prepared(store, cell)
    parts = [outcome(128, 1, 3), outcome(128, 2, 3), outcome(44, 3, 3)]
    for start, part in zip((0, 128, 256), parts, strict=True):
        store.add_chunks(start, {cell: part}, 10, 5, 1.0)
    row = store.finish_cell(cell)
    whole = Outcome.concatenate(parts)
    assert row.summary is not None
    assert row.summary.clean.value == pytest.approx(whole.clean.mean())
    assert row.summary.robust.value == pytest.approx((whole.clean & whole.last).mean())
    assert row.summary.robust_any.value == pytest.approx(whole.robust_any.mean())
    flipped = (whole.clean & ~whole.last).sum() / whole.clean.sum()
    assert row.summary.attack_success.value == pytest.approx(flipped)
    assert row.summary.worst_draw.hits == (whole.clean & whole.last).all(1).sum()
    assert row.summary.majority is not None
    assert row.summary.majority.hits == ((whole.clean & whole.last).sum(1) >= 2).sum()
    assert (row.forwards, row.backwards, row.seconds, row.verdict) == (30, 15, 3.0, "ok")
    read = store.outcome(row.key)
    assert read is not None
    assert read.pack() == whole.pack()


def test_the_same_chunk_twice_changes_nothing(store: Store) -> None:
    cell = make_cell()
    prepared(store, cell)
    for _ in range(2):
        store.add_chunks(0, {cell: outcome(128)}, 10, 5, 1.0)
    assert store.cells()[0].forwards == 10


def test_another_machine_s_rounding_is_the_same_result(store: Store) -> None:
    cell, first = make_cell(), outcome(128)
    prepared(store, cell)
    store.add_chunks(0, {cell: first}, 1, 1, 1.0)
    store.add_chunks(0, {cell: replace(first, margin_last=first.margin_last * np.float32(1.00001))}, 1, 1, 1.0)
    held = store.outcome(key_of(cell))
    assert held is not None
    assert np.array_equal(held.margin_last, first.margin_last)


def test_a_different_second_result_is_an_error_that_shows_both_and_keeps_the_first(store: Store) -> None:
    cell = make_cell()
    prepared(store, cell)
    first, second = outcome(128, 0), outcome(128, 1)
    store.add_chunks(0, {cell: first}, 10, 5, 1.0)
    with pytest.raises(ConflictingResultError, match=f"robust {first.robust_last.mean():.4f} stored.*nothing was"):
        store.add_chunks(0, {cell: second}, 10, 5, 1.0)
    read = store.outcome(key_of(cell))
    assert read is not None
    assert read.pack() == first.pack()


def test_a_chunk_is_stored_for_all_cells_of_a_run_or_for_none(store: Store) -> None:
    known, unknown = make_cell(7), make_cell(40)
    prepared(store, known)
    with pytest.raises(BenchError, match=r"(?i)foreign key"):
        store.add_chunks(0, {known: outcome(128), unknown: outcome(128)}, 10, 5, 1.0)
    assert store.outcome(key_of(known)) is None


def test_an_unfinished_cell_cannot_be_summarised(store: Store) -> None:
    cell = make_cell()
    prepared(store, cell)
    store.add_chunks(0, {cell: outcome(128)}, 10, 5, 1.0)
    with pytest.raises(BenchError, match="has 128 of 300 images"):
        store.finish_cell(cell)
    assert store.begin_cell(cell, 1) == frozenset({0})
    assert not store.done([key_of(cell)])


@pytest.mark.parametrize("flag", [Flag.NAN, Flag.OUTSIDE, Flag.PLACEBO])
def test_nan_a_broken_budget_or_a_placebo_with_an_effect_makes_a_cell_invalid(store: Store, flag: Flag) -> None:
    cell = make_cell(n=128)
    prepared(store, cell)
    flags = np.zeros(128, np.uint8)
    flags[5] = flag
    store.add_chunks(0, {cell: replace(outcome(128), flags=flags)}, 1, 1, 1.0)
    row = store.finish_cell(cell)
    assert row.verdict == "invalid"
    assert row.flags == {flag.name: 1}
    assert row.findings is not None
    assert [finding.verdict for finding in row.findings].count("invalid") == 1
    assert store.cell(row.key).findings == row.findings


def test_weights_that_changed_under_one_key_are_refused(store: Store) -> None:
    run = prepared(store, make_cell())
    store.record_weights("train:abc", "0" * 64, {}, [], None, run)
    with pytest.raises(ConflictingResultError, match="another device or library version"):
        store.record_weights("train:abc", "1" * 64, {}, [], None, run)


def test_a_failed_cell_keeps_its_error_and_starts_again(store: Store) -> None:
    cell = make_cell()
    run = prepared(store, cell)
    store.fail_cell(cell, "attack failed: boom")
    assert (store.cells()[0].status, store.cells()[0].error) == ("failed", "attack failed: boom")
    store.begin_cell(cell, run)
    assert store.cells()[0].status == "running"


def test_cells_are_found_by_the_beginning_of_their_key(store: Store) -> None:
    cells = make_cell(7), make_cell(40)
    prepared(store, *cells)
    assert store.cell(key_of(cells[0])[:10]).key == key_of(cells[0])
    for prefix, message in (("zz", "no stored cell"), ("", "several"), ("%", "no stored cell")):
        with pytest.raises(BenchError, match=message):
            store.cell(prefix)


def write_many(target: str, worker: int) -> None:
    opened = Store(target)
    cell = make_cell(steps=worker + 1, n=128 * 12)
    run = opened.begin_run({"worker": worker})
    opened.record_weights(cell.weights, "0" * 64, {}, [], None, run)
    opened.begin_cell(cell, run)
    for chunk in range(12):
        opened.add_chunks(128 * chunk, {cell: outcome(128, chunk)}, 1, 1, 1.0)
    opened.finish_cell(cell)


def test_eight_processes_create_and_write_one_store_without_losing_a_row(target: str) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_many, args=(target, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    rows = Store(target).cells(status="done")
    assert len(rows) == 8
    assert {row.forwards for row in rows} == {12}


def test_a_reader_is_not_blocked_by_an_open_writer(store: Store) -> None:
    prepared(store, make_cell())
    with store.writing() as session:
        session.execute(sa.text("UPDATE cells SET error = 'x'"))
        assert store.cells()[0].error is None


def test_migrations_build_exactly_the_declared_tables(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    """A database that the first release's schema and code wrote."""
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "assets" / "store-0001.sql").read_text())
    return path


def test_the_first_schema_s_database_is_migrated_and_keeps_every_row(old_store: Path) -> None:
    with closing(sqlite3.connect(old_store)) as connection:
        tables = ("runs", "weights", "chunks")
        before = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    opened = Store(old_store)
    with opened.engine.connect() as migrated:
        assert {
            name: [tuple(r)[: len(before[name][0])] for r in migrated.exec_driver_sql(f"SELECT * FROM {name}")]
            for name in tables
        } == before
        context = MigrationContext.configure(migrated, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    rows = opened.cells()
    assert [(row.attack, row.status, row.verdict, row.n) for row in rows] == [
        ("fgsm", "done", "ok", 32),
        ("pgd3", "done", "ok", 32),
    ]
    for row in rows:
        assert row.summary is not None
        assert (row.summary.robust.hits, row.summary.majority, row.findings, row.audit) == (16, None, None, None)
        held = opened.outcome(row.key)
        assert held is not None
        assert held.robust_last.sum() == 16
    opened.close()
    assert Store(old_store).cells() == rows


def test_candidates_that_were_counted_per_draw_are_counted_again(file_store: Store) -> None:
    noisy, plain = make_cell(draws=3, n=128), make_cell(draws=1, n=128)
    for cell in (noisy, plain):
        prepared(file_store, cell)
        file_store.add_chunks(0, {cell: outcome(128, 1, cell.draws)}, 10, 5, 1.0)
        file_store.finish_cell(cell)
    damaged = make_cell(draws=2, n=128)
    prepared(file_store, damaged)
    file_store.add_chunks(0, {damaged: outcome(128, 1, 2)}, 10, 5, 1.0)
    file_store.finish_cell(damaged)
    with file_store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE cells SET robust_any_hits = 1")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
        for table in ("trials", "studies", "leases", "workers", "campaigns", "failures"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("ALTER TABLE cells DROP COLUMN batch")
        connection.exec_driver_sql("ALTER TABLE chunks DROP COLUMN run_id")
        cut = "UPDATE chunks SET outcome = substr(outcome, 1, 40) WHERE cell_key = ?"
        connection.exec_driver_sql(cut, (key_of(damaged),))
    file_store.close()
    reopened = Store(file_store.target)
    hits = {row.draws: row.summary.robust_any.hits for row in reopened.cells() if row.summary is not None}
    assert hits == {3: pytest.approx(outcome(128, 1, 3).robust_any.sum()), 1: 1, 2: 1}


def make_audit(cell: CellSpec, n: int = 128, eps: str = "8/255", norm: str = "linf") -> AuditSpec:
    return AuditSpec(cell.weights, cell.model, cell.test_hash, n, norm, Fraction(eps))


DOUBTED = Finding("black box", "suspect", 0.2, 0.03, "random search beats the gradient")
BROKEN = Finding("nan", "invalid", 0.2, 0.0, "NaN logits")


def test_an_audit_is_kept_once_and_read_back(store: Store) -> None:
    cell = make_cell()
    run = prepared(store, cell)
    spec = make_audit(cell)
    assert store.audit(spec) is None
    store.record_audit(spec, "suspect", [DOUBTED], 3.0, run)
    store.record_audit(spec, "invalid", [BROKEN], 4.0, run)
    held = store.audit(spec)
    assert held is not None
    assert (held.verdict, held.findings, held.seconds, held.n) == ("suspect", (DOUBTED,), 3.0, 128)
    assert store.audit(make_audit(cell, n=64)) is None


def test_a_cell_is_shown_with_the_worse_of_its_own_verdict_and_its_network_s(store: Store) -> None:
    cell = make_cell(n=128)
    other = replace(cell, model=replace(cell.model, T=8))
    run = prepared(store, cell, other)
    for each in (cell, other):
        store.add_chunks(0, {each: outcome(128)}, 1, 1, 1.0)
        assert store.finish_cell(each).verdict == "ok"
    store.record_audit(make_audit(cell), "suspect", [DOUBTED], 1.0, run)
    shown = {row.spec["model"]["T"]: row for row in store.cells()}
    assert (shown[4].verdict, shown[8].verdict) == ("suspect", "ok")
    assert shown[8].audit is None
    assert shown[4].findings is not None
    assert DOUBTED in shown[4].findings
    assert store.done([key_of(cell)])[key_of(cell)] == store.cell(key_of(cell)) == shown[4]
    # Another norm's audit says nothing here; a larger one of this norm takes the smaller's place.
    store.record_audit(make_audit(cell, norm="l2"), "invalid", [BROKEN], 1.0, run)
    assert store.cell(key_of(cell)).verdict == "suspect"
    store.record_audit(make_audit(cell, n=256), "ok", [], 1.0, run)
    assert store.cell(key_of(cell)).verdict == "ok"
    store.record_audit(make_audit(cell, n=512), "invalid", [BROKEN], 1.0, run)
    assert store.cell(key_of(cell)).verdict == "invalid"


def test_write_ahead_log_and_foreign_keys_are_on(file_store: Store) -> None:
    with file_store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with pytest.raises(BenchError, match=r"(?i)foreign key"), file_store.writing() as session:
        session.execute(sa.text("INSERT INTO chunks VALUES ('none', 0, 1, x'00', NULL)"))


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BenchError, match=r"9999.*upgrade bench"):
        Store(path)


@pytest.mark.parametrize("content", [b"<html>" * 500, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.sqlite"
    path.write_bytes(content)
    with pytest.raises(BenchError, match=r"bench\.sqlite.*: (it is|another|the)|not a database|malformed"):
        Store(path)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_names_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="--results"):
        Store(tmp_path / "file" / "bench.sqlite")


def test_a_database_cut_off_by_a_crash_keeps_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    live = Store(path)
    cell = make_cell()
    prepared(live, cell)
    live.add_chunks(0, {cell: outcome(128)}, 1, 1, 1.0)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("bench.sqlite*"):
        shutil.copy(file, crashed)
    live.close()
    read = Store(crashed / "bench.sqlite").outcome(key_of(cell))
    assert read is not None
    assert read.n == 128
