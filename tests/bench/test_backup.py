"""Backups, and what becomes of a store whose disk failed: read rightly, or refused with the way out."""

import json
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from filelock import FileLock
from support import Run, make_cell
from test_store import outcome, prepared

from bench.errors import BenchError, StoreError
from bench.exchange.bundle import collect_bundle
from bench.exchange.merge import merge_bundle
from bench.spec import key_of
from bench.store import Store, backup
from bench.store.backup import back_up, back_up_if_due, backup_of, restorable, restore
from bench.store.health import cells_in, examine


def fill(path: Path, cells: int) -> None:
    opened = Store(path)
    for steps in range(1, cells + 1):
        cell = make_cell(steps, n=256)
        prepared(opened, cell)
        for start in (0, 128):
            opened.add_chunks(start, {cell: outcome(128, steps + start)}, 1, 1, 1.0)
        opened.finish_cell(cell)
    opened.close()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    fill(folder / "bench.sqlite", 6)
    assert back_up(folder / "bench.sqlite").problem is None
    return folder


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A store of six finished cells, with its backup."""
    for file in ("bench.sqlite", "bench.sqlite.backup"):
        shutil.copy2(template / file, tmp_path)
    return tmp_path / "bench.sqlite"


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir() if not file.name.endswith((".lock", "-shm", "-wal"))}


def broken(path: Path) -> None:
    """Zero the page that the cells begin on, as a disk does."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'cells'").fetchone()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(bytes(4096))


def test_a_backup_holds_what_was_committed_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    opened = Store(path)
    cell = make_cell(n=128)
    prepared(opened, cell)
    opened.add_chunks(0, {cell: outcome(128)}, 1, 1, 1.0)
    opened.finish_cell(cell)
    rows = opened.cells()
    # All of it is still in the log, and somebody is about to write.
    with opened.writing() as session:
        session.execute(sa.text("UPDATE cells SET error = 'uncommitted'"))
        made = back_up(path)
    assert (made.file, made.cells, made.problem) == (backup_of(path), 1, None)
    assert Store(made.file, reading=True).cells() == rows
    assert opened.begin_run({}) >= 1
    assert names(path) == {"bench.sqlite", "bench.sqlite.backup"}


def test_a_damaged_store_never_takes_its_backup_s_place(path: Path) -> None:
    before = backup_of(path).read_bytes()
    broken(path)
    made = back_up(path)
    assert made.cells is None
    assert made.problem is not None
    assert "is damaged" in made.problem
    assert "with 6 finished cells is good; put it in place with: bench restore --results" in made.problem
    assert "\n" not in made.problem
    assert backup_of(path).read_bytes() == before
    assert names(path) == {"bench.sqlite", "bench.sqlite.backup"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE cells SET robust_hits = robust_hits + 1 WHERE status = 'done'", "other numbers than its outcomes"),
        ("UPDATE cells SET spec = replace(spec, 'digits', 'digitz'), seed = seed", None),
        ("UPDATE cells SET spec = replace(spec, 'pgd', 'pgx')", "not what its key says"),
        ("UPDATE chunks SET outcome = substr(outcome, 1, 60)", "damaged outcome"),
        ("DELETE FROM chunks WHERE start = 128", "another verdict or length"),
        ("UPDATE cells SET updated = 'yesterday'", "cannot be read"),
        ("UPDATE runs SET provenance = '{'", "cannot be read"),
        ("UPDATE cells SET n = 'many'", "cannot be read"),
        ("UPDATE cells SET error = x'00'", "cannot be read"),
        ("UPDATE cells SET seconds = 'long'", "cannot be read"),
        ("UPDATE cells SET seconds = 3", None),
        ("UPDATE cells SET findings = '[{}]'", "findings"),
        ("UPDATE cells SET verdict = 'fine'", "another verdict"),
        ("UPDATE cells SET eps = '9/255'", "called otherwise"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM weights", "belongs to none of 'weights'"),
    ],
)
def test_what_a_disk_changed_without_breaking_a_page_is_found_too(path: Path, change: str, says: str | None) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(change)
    found = examine(path)
    assert (found is None) if says is None else (found is not None and says in found)
    assert (back_up(path).problem is None) == (says is None)


def test_stores_that_were_measured_imported_and_brought_up_to_date_are_healthy(results: Path, tmp_path: Path) -> None:
    assert examine(results / "bench.sqlite") is None
    old = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript((Path(__file__).parent / "assets" / "store-0001.sql").read_text())
    assert examine(old) is None
    Store(old).close()
    assert examine(old) is None
    there, here = Store(results / "bench.sqlite", reading=True), Store(tmp_path / "here.sqlite")
    # The same recipe with other bits is here already, so that what comes is renamed.
    run = here.begin_run({})
    for key in there.trained():
        here.record_weights(key, "f" * 64, {}, [], None, run)
    merge_bundle(here, collect_bundle(there, there.cells()), note={})
    assert len(here.cells()) == len(there.cells())
    assert examine(tmp_path / "here.sqlite") is None


def test_a_store_with_fewer_cells_moves_the_backup_aside(path: Path) -> None:
    before = backup_of(path).read_bytes()
    (path.parent / "other").mkdir()
    fill(path.parent / "other" / "bench.sqlite", 2)
    shutil.move(path.parent / "other" / "bench.sqlite", path)
    assert back_up(path).cells == 2
    (kept,) = path.parent.glob("bench.sqlite.backup-*")
    assert kept.read_bytes() == before
    assert cells_in(backup_of(path)) == 2


def test_a_backup_that_cannot_be_made_says_why_and_fails_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = backup_of(path).read_bytes()
    with FileLock(path.with_name(".bench.sqlite.backup.lock")):
        other = back_up(path)
    assert (other.cells, other.problem) == (None, None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and Usage(free=1000))
    full = back_up(path)
    assert full.problem is not None
    assert "0 MB are free" in full.problem
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    denied = back_up(path)
    assert denied.problem is not None
    assert "Permission denied" in denied.problem
    assert backup_of(path).read_bytes() == before
    assert back_up(path.parent / "none.sqlite").problem is not None
    assert not (path.parent / "none.sqlite").exists()
    assert not list(path.parent.glob(".*.part*"))


class Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the process began."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(backup, "_began", 0.0)
    monkeypatch.setattr(backup, "_tried", {})
    return now


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(backup_of(path), (then, then))


def made(path: Path, *, finished: bool) -> bool:
    """Whether a backup was made; it is given back its age."""
    held = backup_of(path).stat() if backup_of(path).exists() else None
    assert back_up_if_due(path, finished=finished) is None
    now = backup_of(path).stat() if backup_of(path).exists() else None
    backup._tried.clear()
    return (now and now.st_ino) != (held and held.st_ino)


def test_a_backup_is_made_at_the_end_and_each_hour_and_not_more_often(
    path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock[0] = 10_000
    age(path, 3500)
    assert not made(path, finished=False)
    assert made(path, finished=True)
    age(path, 3700)
    assert made(path, finished=False)
    # At this pace one takes ten seconds: a thousand must have gone by.
    monkeypatch.setattr(backup, "_BYTES_PER_SECOND", path.stat().st_size / 10)
    age(path, 900)
    assert not made(path, finished=True)
    age(path, 1100)
    assert made(path, finished=True)
    monkeypatch.setattr(backup, "_BYTES_PER_SECOND", path.stat().st_size / 50)
    age(path, 4000)
    assert not made(path, finished=False)
    age(path, 6000)
    assert made(path, finished=False)


def test_without_a_backup_the_first_is_made_at_the_end_or_after_an_hour_of_work(path: Path, clock: list[float]) -> None:
    backup_of(path).unlink()
    clock[0] = 3000
    assert not made(path, finished=False)
    clock[0] = 3700
    assert made(path, finished=False)
    backup_of(path).unlink()
    clock[0] = 1
    assert made(path, finished=True)


def test_a_clock_that_was_put_back_does_not_stop_backups(path: Path, clock: list[float]) -> None:
    clock[0] = 5000
    age(path, -86_400)
    assert made(path, finished=True)
    age(path, -86_400)
    assert made(path, finished=False)


def test_a_backup_that_failed_is_tried_again_an_hour_later(path: Path, clock: list[float]) -> None:
    clock[0] = 5000
    age(path, 5000)
    broken(path)
    assert back_up_if_due(path, finished=False) is not None
    clock[0] += 3500
    assert back_up_if_due(path, finished=False) is None
    clock[0] += 200
    assert back_up_if_due(path, finished=False) is not None


def test_other_databases_and_missing_files_need_none(tmp_path: Path) -> None:
    assert back_up_if_due(None, finished=True) is None
    assert back_up_if_due(tmp_path / "none.sqlite", finished=True) is None
    assert list(tmp_path.iterdir()) == []


def test_restoring_puts_the_backup_in_place_and_deletes_nothing(path: Path, bench: Run) -> None:
    good = cells_in(path)
    broken(path)
    bad, kept = path.read_bytes(), backup_of(path).read_bytes()
    with pytest.raises(StoreError, match=r"damaged.*with 6 finished cells is good.*bench restore --results"):
        Store(path)
    path.with_name("bench.sqlite-wal").write_bytes(b"log")
    done = restore(path)
    assert done.aside is not None
    assert done.backup.cells == good == 6
    assert done.aside.read_bytes() == bad
    assert done.aside.name.startswith(f"bench.sqlite.damaged-{datetime.now():%Y%m}")
    assert done.aside.with_name(f"{done.aside.name}-wal").read_bytes() == b"log"
    assert backup_of(path).read_bytes() == kept
    opened = Store(path)
    assert len(opened.cells(status="done")) == 6
    with opened.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    opened.close()
    assert names(path) == {"bench.sqlite", "bench.sqlite.backup", done.aside.name}
    # A second time within a second.
    broken(path)
    again = restore(path)
    assert again.aside not in (None, done.aside)


def test_the_command_says_what_it_did_and_what_to_do(path: Path, bench: Run) -> None:
    folder = path.parent / "results"
    folder.mkdir()
    for file in (path, backup_of(path)):
        shutil.move(file, folder)
    store = folder / "bench.sqlite"
    healthy = bench("restore")
    assert healthy.returncode == 2
    assert "is healthy and holds 6 finished cells" in healthy.stderr
    assert "--force" in healthy.stderr
    broken(store)
    refused = bench("export", "x.json")
    assert refused.returncode == 2
    assert refused.stderr.endswith("put it in place with: bench restore\n")
    assert refused.stderr.count("\n") == 1
    done = bench("restore")
    assert done.returncode == 0, done.stderr
    assert "with 6 finished cells" in done.stdout
    assert "bench run computes again" in done.stdout
    assert len(json.loads(bench("ls", "runs", "--json").stdout)) == 6
    forced = json.loads(bench("restore", "--store", store, "--force", "--json").stdout)
    assert forced["cells"] == 6
    assert Path(forced["damaged"]).is_file()
    assert datetime.fromisoformat(forced["made"]).tzinfo is not None
    backup_of(store).unlink()
    none = bench("restore")
    assert none.returncode == 2
    assert "has no backup" in none.stderr
    assert "checkpoints are untouched" in none.stderr


def test_a_store_that_is_gone_is_not_begun_anew_beside_its_backup(path: Path) -> None:
    """It would be empty, and at the end of the run take the backup's place."""
    path.unlink()
    with pytest.raises(StoreError, match=r"is gone, and the backup of .* with 6 finished cells.*bench restore"):
        Store(path)
    path.touch()
    with pytest.raises(StoreError, match=r"is empty, and the backup"):
        Store(path)
    assert restore(path).backup.cells == 6
    assert len(Store(path).cells()) == 6


def test_a_backup_that_is_damaged_is_not_put_in_place(path: Path) -> None:
    broken(path)
    broken(backup_of(path))
    held = restorable(path)
    assert isinstance(held, str)
    with pytest.raises(BenchError, match=r"nothing was restored.*its backup is damaged as well"):
        restore(path)
    with pytest.raises(StoreError, match="its backup is damaged as well"):
        Store(path)
    # Made of a good store, a new one takes its place.
    path.unlink()
    backup_of(path).unlink()
    fill(path, 1)
    broken(backup_of(path)) if backup_of(path).exists() else backup_of(path).write_bytes(b"x" * 9000)
    assert back_up(path).problem is None


def damage(path: Path, seed: int) -> None:
    """What disks do: flip bits, lose the end, return zeros or another page."""
    draw, size = random.Random(seed), path.stat().st_size
    with path.open("r+b") as file:
        how = seed % 5
        if how == 0:
            file.truncate(draw.randrange(size))
        elif how == 1:
            for _ in range(draw.choice((1, 10, 100))):
                place = draw.randrange(size)
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ (1 << draw.randrange(8))]))
        elif how == 2:
            start = draw.randrange(size)
            file.seek(start)
            file.write(bytes(min(draw.choice((16, 512, 4096, 3 * 4096)), size - start)))
        elif how == 3:
            start = draw.randrange(size)
            file.seek(start)
            file.write(draw.randbytes(min(draw.choice((4, 64, 4096)), size - start)))
        else:
            pages = size // 4096
            file.seek(4096 * draw.randrange(pages))
            other = file.read(4096)
            file.seek(4096 * draw.randrange(pages))
            file.write(other)


def everything(path: Path, *, reading: bool) -> object:
    """What reports are made of, as far as it is protected by checksums and keys."""
    opened = Store(path, reading=reading)
    try:
        rows = opened.cells()
        outcomes = {row.key: held.pack() if (held := opened.outcome(row.key)) else None for row in rows}
        opened.trained(), opened.origins()
        return [(r.key, dict(r.spec), r.n, r.draws, r.model, r.norm, r.eps, r.summary, r.flags) for r in rows], outcomes
    finally:
        opened.close()


def test_a_store_damaged_anywhere_is_read_rightly_or_refused_and_its_backup_is_intact(path: Path) -> None:
    right, good, kept = everything(path, reading=True), path.read_bytes(), backup_of(path).read_bytes()
    refused = unharmed = found_later = 0
    for seed in range(250):
        for rest in path.parent.glob("bench.sqlite-*"):
            rest.unlink()
        path.write_bytes(good)
        damage(path, seed)
        try:
            read = everything(path, reading=seed % 2 == 0)
        except BenchError as error:
            text = str(error)
            assert "\n" not in text
            assert "bench restore --results" in text, (seed, text)
            assert "with 6 finished cells" in text, (seed, text)
            refused += 1
        else:
            if read == right:
                unharmed += 1
            else:
                # A digit that changed where it is still a digit; found before it could get into the backup.
                assert examine(path) is not None, seed
                found_later += 1
        back_up(path)
        assert backup_of(path).read_bytes() == kept or examine(backup_of(path)) is None
        backup_of(path).write_bytes(kept)
        if seed % 10 == 0:
            restore(path, force=True)
            assert everything(path, reading=True) == right
            for aside in path.parent.glob("bench.sqlite.damaged-*"):
                aside.unlink()
    print(refused, unharmed, found_later)
    assert refused > 100
    assert found_later < 40


def test_a_row_that_cannot_be_read_is_refused_with_the_mend(path: Path) -> None:
    for change in (
        "UPDATE cells SET updated = 'yesterday'",
        "UPDATE cells SET findings = '[3'",
        "UPDATE cells SET clean_hits = NULL",
        "UPDATE cells SET findings = '[{\"check\": 3}]'",
        "UPDATE cells SET flags = x'ff'",
    ):
        shutil.copy(backup_of(path), path)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(change)
        opened = Store(path)
        with pytest.raises(StoreError, match=r"is damaged.*bench restore"):
            opened.cells()
        opened.close()
    shutil.copy(backup_of(path), path)
    opened = Store(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("UPDATE chunks SET outcome = substr(outcome, 1, 50)")
    with pytest.raises(StoreError, match=rf"cell {key_of(make_cell(1, n=256))[:12]}.*damaged.*bench restore"):
        opened.outcome(key_of(make_cell(1, n=256)))
    opened.close()
    # A mistake in the program stays one.
    shutil.copy(backup_of(path), path)
    opened = Store(path)
    with pytest.raises(ZeroDivisionError), opened.reading():
        _ = 1 / 0
