"""Stores that cannot be written: an archive that is mounted, a colleague's folder."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from measuring import tiny_request
from typer.testing import CliRunner, Result

from bench.cli import app
from bench.errors import BenchError
from bench.plan import make_plan
from bench.spec import key_of
from bench.store import Store

OLD = Path(__file__).parent / "assets" / "store-0001.sql"


def mount(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


@pytest.fixture(params=["folder that is mounted read-only", "file that is mounted read-only", "folder", "file"])
def sealed(request: pytest.FixtureRequest, results: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A results folder that cannot be written, in truth where mounting is permitted, and as far as one is told."""
    # Nothing of a writer may be left, or SQLite could do with what lies beside the file.
    (results / "bench.sqlite.backup").unlink(missing_ok=True)
    with closing(sqlite3.connect(results / "bench.sqlite")) as last:
        last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert [path.name for path in results.glob("bench.sqlite*")] == ["bench.sqlite"]
    sealed = results / "bench.sqlite" if request.param.startswith("file") else results
    if "mounted" not in request.param:
        told = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: not (mode & os.W_OK and Path(path) == sealed) and told(path, mode)
        )
        yield results
        return
    mount("--bind", str(sealed), str(sealed))
    try:
        mount("-o", "remount,ro,bind", str(sealed))
        yield results
    finally:
        subprocess.run(["umount", str(sealed)], check=True)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_every_command_that_only_reads_reads_it(
    sealed: Path, tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Figures are written to where one is.
    monkeypatch.chdir(tmp_path)
    before = state(sealed)
    plan = make_plan(tiny_request(tiny_npz, attacks=("fgsm",)), sealed / "checkpoints", tmp_path)
    key = key_of(plan.cells[0])
    commands = [
        ["table"],
        ["leaderboard"],
        ["leaderboard", "--format", "html", "-o", tmp_path / "site"],
        ["leaderboard", "submit", "-o", tmp_path / "x.zip", "--by", "me"],
        ["compare", "vanilla", "at", "-a", "fgsm", "--eps", "0.1"],
        ["variance", "-d", "at", "-a", "fgsm", "--eps", "0.1"],
        ["curve", "eps"],
        ["ls", "runs"],
        ["show", key],
        ["worst"],
        ["export", tmp_path / "x.json.gz"],
        ["baseline", "save", tmp_path / "baseline.json.gz"],
        ["check", "--baseline", tmp_path / "baseline.json.gz", "--allow-cached"],
    ]
    for command in commands:
        done = invoke(*command, "--results", sealed)
        assert done.exit_code == 0, (command, done.output, done.exception)
    planned = invoke("plan", "--dataset", tiny_npz, "--model", "cnn-small", "-a", "fgsm", "--results", sealed)
    assert planned.exit_code == 0, planned.output
    assert state(sealed) == before


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A database of the first release in a folder that is mounted read-only."""
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "bench.sqlite")) as connection:
        connection.executescript(OLD.read_text())
    mount("--bind", str(folder), str(folder))
    try:
        mount("-o", "remount,ro,bind", str(folder))
        yield folder / "bench.sqlite"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_an_older_schema_is_read_all_the_same(old: Path) -> None:
    store = Store(old, reading=True)
    assert [row.attack for row in store.cells()] == ["fgsm", "pgd3"]
    copy = Path(str(store.engine.url.database))
    assert copy.is_file()
    store.close()
    assert not copy.parent.exists()
    assert [path.name for path in old.parent.iterdir()] == ["bench.sqlite"]


def test_to_write_an_older_schema_names_the_mend(old: Path) -> None:
    with pytest.raises(
        BenchError, match=r"schema 0001.*read-only; copy it to where it can be written.*--store"
    ) as refused:
        Store(old)
    assert "\n" not in str(refused.value)


def test_what_was_not_yet_written_back_is_read(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is at work keeps its last commits beside the file."""
    writer = Store(results / "bench.sqlite")
    run = writer.begin_run({"version": "late"})
    writer.record_weights("file:late", "1" * 64, {}, [], None, run)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    reader = Store(results / "bench.sqlite", reading=True)
    assert reader.weights("file:late") is not None
    reader.close()
    writer.close()


def test_a_copy_that_is_no_store_leaves_nothing_and_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, temporary = tmp_path / "bench.sqlite", tmp_path / "temporary"
    file.write_bytes(b"<html>" * 500)
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(BenchError, match=f"store '{file}'"):
        Store(file, reading=True)
    assert not list(temporary.iterdir())
