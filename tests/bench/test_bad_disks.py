"""Disks that are full, turn read-only or disappear, and clocks that jump: one line, nothing committed is lost."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import Run, make_cell
from test_crash import chunks, run_arguments, start, wait_for
from test_store import outcome, prepared

from bench.errors import StoreError
from bench.spec import CellSpec, key_of
from bench.store import Store
from bench.store.backup import back_up, back_up_if_due, backup_of

CHUNKS = 400
CELL = make_cell(n=128 * CHUNKS)


def mount(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB of its own."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def write(store: Store, first: int = 0) -> tuple[int, str]:
    """Writes chunks until it is not possible; how many were said to be kept, and the error."""
    for chunk in range(first, CHUNKS):
        try:
            store.add_chunks(128 * chunk, {CELL: outcome(128, chunk)}, 1, 1, 1.0)
        except StoreError as error:
            return chunk, str(error)
    return CHUNKS, ""


def held(path: Path, cell: CellSpec = CELL) -> int:
    opened = Store(path, reading=True)
    found = opened.outcome(key_of(cell))
    opened.close()
    if found is None:
        return 0
    for chunk in range(found.n // 128):
        assert found.part(128 * chunk, 128).pack() == outcome(128, chunk).pack()
    return found.n // 128


def test_a_disk_that_fills_up_keeps_every_chunk_that_was_written(disk: Path) -> None:
    path = disk / "bench.sqlite"
    store = Store(path)
    prepared(store, CELL)
    kept, error = write(store)
    assert 0 < kept < CHUNKS
    assert "the disk is full; free some space and run the same command again" in error
    assert "\n" not in error
    # Whoever goes on trying, and other processes, are told the same; nothing gets worse.
    assert write(store, kept) == (kept, error)
    store.close()
    assert held(path) == kept
    made = back_up(path)
    assert made.problem is not None
    assert "no backup" in made.problem
    assert not list(disk.glob("*backup")) + list(disk.glob(".*part"))
    mount("-o", "remount,size=20m", str(disk))
    store = Store(path)
    assert len(store.begin_cell(CELL, 1)) == kept
    assert write(store, kept) == (CHUNKS, "")
    assert store.finish_cell(CELL).forwards == CHUNKS
    assert back_up(path).problem is None
    store.close()


def test_a_store_on_a_disk_that_is_full_to_the_last_byte_is_read(disk: Path) -> None:
    path = disk / "bench.sqlite"
    store = Store(path)
    prepared(store, CELL)
    for chunk in range(10):
        store.add_chunks(128 * chunk, {CELL: outcome(128, chunk)}, 1, 1, 1.0)
    store.close()
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(disk).free == 0
    assert held(path) == 10
    with pytest.raises(StoreError, match="the disk is full") as error:
        Store(path).begin_run({})
    assert "\n" not in str(error.value)
    assert back_up_if_due(path, finished=True) is not None


def test_a_disk_that_turns_read_only_keeps_every_chunk(disk: Path) -> None:
    mount("-o", "remount,size=20m", str(disk))
    path = disk / "bench.sqlite"
    store = Store(path)
    prepared(store, CELL)
    for chunk in range(5):
        store.add_chunks(128 * chunk, {CELL: outcome(128, chunk)}, 1, 1, 1.0)
    store.close()
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(StoreError, match=r"read-only; choose another with --results or --store") as error:
        Store(path).begin_run({})
    assert "\n" not in str(error.value)
    assert held(path) == 5
    problem = back_up_if_due(path, finished=True)
    assert problem is not None
    assert "Read-only" in problem
    mount("-o", "remount,rw", str(disk))
    store = Store(path)
    assert write(store, 5) == (CHUNKS, "")
    store.close()


@pytest.mark.parametrize("how", ["folder deleted", "file deleted", "folder moved", "replaced"])
def test_a_store_that_disappears_while_it_is_used_takes_nothing_more(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "results"
    path = folder / "bench.sqlite"
    store = Store(path)
    prepared(store, CELL)
    for chunk in range(3):
        store.add_chunks(128 * chunk, {CELL: outcome(128, chunk)}, 1, 1, 1.0)
    if how == "folder deleted":
        shutil.rmtree(folder)
    elif how == "file deleted":
        path.unlink()
    elif how == "folder moved":
        folder.rename(tmp_path / "moved")
    else:
        other = tmp_path / "other.sqlite"
        Store(other).close()
        other.replace(path)
    says = "replaced by another file" if how == "replaced" else "deleted or moved while it was in use"
    for _ in range(2):
        with pytest.raises(StoreError, match=says) as error:
            store.add_chunks(128 * 3, {CELL: outcome(128, 3)}, 1, 1, 1.0)
        assert "\n" not in str(error.value)
    store.close()
    if how == "folder moved":
        assert held(tmp_path / "moved" / "bench.sqlite") == 3
    again = Store(path)
    prepared(again, CELL)
    assert write(again) == (CHUNKS, "")
    again.close()
    assert held(path) == CHUNKS


def test_a_run_whose_folder_is_deleted_ends_with_one_line_and_the_next_one_works(
    tiny_npz: Path, tmp_path: Path, bench: Run
) -> None:
    arguments = run_arguments(tiny_npz)
    process = start(arguments, tmp_path)
    results = tmp_path / "results"
    wait_for(lambda: chunks(results / "bench.sqlite") > 0, process)
    # It writes into the folder meanwhile.
    deleted = tmp_path / "deleted"
    results.rename(deleted)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in (1, 2), errors
    assert "deleted or moved while it was in use" in errors
    assert "Traceback" not in errors
    again = bench(*arguments)
    assert again.returncode == 0, again.stderr


def test_clocks_that_jump_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bench.sqlite"
    cell = make_cell(n=128 * 4)
    store = Store(path)
    run = prepared(store, cell)
    for chunk, year in enumerate((2099, 1970, 2038, 2001)):
        store.add_chunks(128 * chunk, {cell: outcome(128, chunk)}, 1, 1, 1.0)
        with store.writing() as session:
            for table in ("cells", "runs", "weights"):
                session.execute(sa.text(f"UPDATE {table} SET created = '{year}-01-01 00:00:00.000000'"))
            session.execute(sa.text(f"UPDATE cells SET updated = '{year}-01-01 00:00:00.000000'"))
        assert store.begin_cell(cell, run) == frozenset(128 * done for done in range(chunk + 1))
    row = store.finish_cell(cell)
    assert row.forwards == 4
    assert held(path, cell) == 4
    # A backup from the future is not waited for.
    assert back_up(path).problem is None
    later = time.time() + 10 * 365 * 86_400
    os.utime(backup_of(path), (later, later))
    before = backup_of(path).stat().st_ino
    assert back_up_if_due(path, finished=True) is None
    assert backup_of(path).stat().st_ino != before
    store.close()
