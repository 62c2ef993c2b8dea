"""A store on a PostgreSQL server: writers that meet, servers that go away, and what its users are told."""

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from postgres import PASSWORD, NewDatabase, Server
from support import Run, make_cell
from test_store import outcome, prepared
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError, ConnectionLostError, StoreError
from bench.secret import masked
from bench.spec import key_of
from bench.store import Store, engine, nonfinite, retry

SECRET = quote(PASSWORD, safe="")


@pytest.fixture
def url(postgres: NewDatabase) -> str:
    return postgres()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store(url)
    yield opened
    opened.close()


def test_writers_that_meet_on_the_same_rows_neither_fail_nor_wait_for_each_other_in_a_ring(url: str) -> None:
    cells = [make_cell(steps, n=128 * 4) for steps in (7, 10, 20)]
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        opened = Store(url)
        mine = cells if number % 2 else cells[::-1]
        run = opened.begin_run({"worker": number})
        for cell in mine:
            barrier.wait(60)
            opened.record_weights(cell.weights, "0" * 64, {}, [], None, run)
            opened.begin_cell(cell, run)
        for chunk in range(4):
            barrier.wait(60)
            opened.add_chunks(128 * chunk, {cell: outcome(128, chunk) for cell in mine}, 3, 3, 3.0)
        for cell in mine:
            opened.finish_cell(cell)
        opened.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    rows = Store(url).cells(status="done")
    assert len(rows) == 3
    # Each chunk was counted once, whoever brought it.
    assert {row.forwards for row in rows} == {4}


def test_a_reader_sees_one_state_and_waits_for_nobody(store: Store, url: str) -> None:
    prepared(store, make_cell(7))
    other = Store(url, reading=True)
    count = sa.text("SELECT count(*) FROM cells")
    with other.reading() as session:
        assert session.scalar(count) == 1
        with store.writing() as writer:
            writer.execute(sa.text("UPDATE cells SET error = 'x'"))
            assert other.cells()[0].error is None
        store.begin_cell(make_cell(10), 1)
        assert session.scalar(count) == 1
    assert len(other.cells()) == 2


def test_numbers_that_are_none_and_texts_with_nul_are_kept(store: Store) -> None:
    cell = make_cell()
    run = store.begin_run({"x": [math.nan, {"y": math.inf}], "z": "a\0b"})
    store.record_weights(cell.weights, "0" * 64, {}, [{"loss": math.nan}], None, run)
    store.begin_cell(cell, run)
    store.fail_cell(cell, "bad\0 byte")
    held = store.weights(cell.weights)
    assert held is not None
    assert math.isnan(held["log"][0]["loss"])
    first, second = store.provenance(key_of(cell))["x"]
    assert math.isnan(first)
    assert second == {"y": math.inf}
    assert store.cells()[0].error == "bad byte"
    assert nonfinite.loads(nonfinite.dumps({"a": [1, 2.5, None]})) == {"a": [1, 2.5, None]}


def test_capitals_in_a_key_do_not_matter(store: Store) -> None:
    prepared(store, make_cell())
    assert store.cell(key_of(make_cell())[:12].upper()).key == key_of(make_cell())


def refused(target: str, *, reading: bool = False) -> str:
    with pytest.raises(StoreError) as error:
        Store(target, reading=reading)
    text = str(error.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert SECRET not in text
    return text


def test_a_server_that_is_not_there_is_asked_for_some_seconds(postgres_server: Server) -> None:
    began = time.monotonic()
    text = refused(f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/store")
    assert "is the server running, and are host and port in the URL right?" in text
    assert "me:***@" in text
    assert 2 < time.monotonic() - began < 20


def test_a_login_that_is_refused_names_the_mend(postgres_server: Server, url: str) -> None:
    place = url.partition("@")[2]
    began = time.monotonic()
    wrong = refused(f"postgresql+psycopg://guarded:{SECRET}x@{place}")
    assert "password authentication failed" in wrong
    assert "~/.pgpass" in wrong
    assert "check user and password" in refused(f"postgresql://guarded@{place}")
    assert "check user and password" in refused(f"postgresql+psycopg://nobody:{SECRET}@{place}")
    assert "createdb" in refused(postgres_server.url("not_there", f"guarded:{SECRET}"))
    assert time.monotonic() - began < 5, "what will not change is not tried again"


@pytest.mark.parametrize(
    "target",
    [
        f"postgresql+psycopg://me:{PASSWORD}@host/store",
        f"postgresql+psycopg://me:{PASSWORD}@host:port/store",
        f"postgresql+psycopg://host/store?user=me&password={SECRET}&sslmode=wrong",
        f"nosuchdatabase://me:{SECRET}@host/store",
    ],
)
def test_urls_that_cannot_be_read_do_not_show_the_password(target: str) -> None:
    pytest.importorskip("psycopg")
    text = refused(target)
    assert PASSWORD.split("/")[1] not in text
    assert PASSWORD.split("/")[0] not in text


def test_without_the_driver_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'snn-bench[postgres]'" in refused(f"postgresql://me:{SECRET}@host/store")


def test_who_may_only_read_reads_and_is_told_so_when_writing(postgres_server: Server, store: Store, url: str) -> None:
    cell = make_cell(n=128)
    prepared(store, cell)
    database = url.rpartition("/")[2]
    login = postgres_server.url(database, f"reader:{SECRET}")
    assert "may only read" in refused(login)
    postgres_server.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", database)
    reader = Store(login)
    assert [row.key for row in reader.cells()] == [key_of(cell)]
    with pytest.raises(StoreError, match=r"permission denied.*may only read.*GRANT"):
        reader.begin_run({})
    # An older schema is not his to bring up to date.
    postgres_server.sql("UPDATE alembic_version SET version_num = '0002'", database)
    assert "open it once as its owner" in refused(login)


def test_an_empty_database_that_one_may_not_write_names_the_mend(postgres_server: Server, url: str) -> None:
    assert "may only read" in refused(postgres_server.url(url.rpartition("/")[2], f"reader:{SECRET}"))


def test_another_program_s_database_is_left_alone(postgres_server: Server, url: str) -> None:
    postgres_server.sql("CREATE TABLE theirs (x int)", url.rpartition("/")[2])
    with pytest.raises(BenchError, match="another program's database"):
        Store(url)


def test_names_and_numbers_that_are_too_large_are_one_line(store: Store) -> None:
    with pytest.raises(StoreError, match=r"too long.*shorten it"), store.writing() as session:
        session.execute(sa.text("INSERT INTO alembic_version VALUES (:x)"), {"x": "x" * 99})
    with pytest.raises(StoreError, match=r"out of range.*choose a smaller one"), store.writing() as session:
        session.execute(sa.text("SELECT 3000000000 :: integer"))


def test_every_command_says_the_same_of_the_same_results(
    postgres_server: Server, url: str, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Figures are written to where one is.
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "all.json.gz"
    # Where the server stands is no part of a result.
    postgres_server.sql(f"ALTER DATABASE {url.rpartition('/')[2]} SET timezone = 'Asia/Kolkata'")

    def invoke(*arguments: str | Path) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return done.stdout

    invoke("export", file, "--results", measured)
    stores = tmp_path / "bench.sqlite", url
    for store in stores:
        invoke("import", file, "--store", store)
        assert " 0 cells added" in invoke("import", file, "--store", store)
    key = json.loads(invoke("ls", "runs", "--json", "--store", url))[0]["key"]
    for command in (
        ["table"],
        ["table", "--json"],
        ["leaderboard"],
        ["compare", "vanilla", "at", "-a", "fgsm", "--eps", "0.1"],
        ["variance", "-d", "at", "-a", "fgsm", "--eps", "0.1"],
        ["curve", "eps"],
        ["ls", "runs"],
        ["show", key, "--samples"],
        ["worst"],
    ):
        said = [invoke(*command, "--store", store).replace(str(store), "STORE") for store in stores]
        # Lines are broken where the store's name ends.
        one, other = (" ".join(text.split()) for text in said)
        assert one == other, command
    for store, name in zip(stores, ("a.json", "b.json"), strict=True):
        invoke("export", tmp_path / name, "--store", store)
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert [cell["outcome"] for cell in one["cells"]] == [cell["outcome"] for cell in other["cells"]]
    assert len(one["cells"]) > 20


def test_no_password_is_printed_or_stored(
    postgres_server: Server, postgres: NewDatabase, bench: Run, tiny_run: list[str]
) -> None:
    database = postgres().rpartition("/")[2]
    postgres_server.sql(f"ALTER DATABASE {database} OWNER TO guarded", "postgres")
    postgres_server.sql("ALTER SCHEMA public OWNER TO guarded", database)
    url = postgres_server.url(database, f"guarded:{SECRET}")
    done = bench(*tiny_run, "-a", "fgsm", "-d", "vanilla", "--store", url)
    assert done.returncode == 0, done.stderr
    again = bench(*tiny_run, "-a", "fgsm", "-d", "vanilla", f"--store={url}", "--json")
    assert "guarded:***@" in done.stdout
    opened = Store(url)
    (row,) = opened.cells(status="done")
    stored = json.dumps(opened.provenance(row.key))
    assert "guarded:***@" in stored
    for text in (done.stdout, done.stderr, again.stdout, again.stderr, stored, opened.target):
        assert SECRET not in text
        assert PASSWORD not in text
    assert opened.url == url
    assert opened.file is None
    refusal = bench("restore", "--store", url)
    assert refusal.returncode == 2
    assert "pg_restore" in refusal.stderr


def test_what_is_masked() -> None:
    assert masked("postgresql://me:pw@host/db") == "postgresql://me:***@host/db"
    assert masked("postgresql://me:p@w@host/db") == "postgresql://me:***@host/db"
    assert masked("postgresql:///db?host=/tmp&password=pw&x=1") == "postgresql:///db?host=/tmp&password=***&x=1"
    for text in (
        "results/bench.sqlite",
        "sqlite:////tmp/a@b",
        "pgd40@rga",
        "tgo:lam=0.6+at",
        "postgresql://me@host/db",
    ):
        assert masked(text) == text


@contextmanager
def restarting(server: Server, pauses: tuple[float, ...], how: str) -> Iterator[None]:
    """The server is stopped and started meanwhile, after each of the given numbers of seconds."""

    def restart() -> None:
        for pause in pauses:
            time.sleep(pause)
            server.stop(how)
            time.sleep(0.5)
            server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        thread.join(120)


def write_chunks(store: Store, count: int, between: Callable[[], None]) -> None:
    cell = make_cell(n=128 * count)
    prepared(store, cell)
    for chunk in range(count):
        store.add_chunks(128 * chunk, {cell: outcome(128, chunk)}, 1, 1, 1.0)
        between()
    row = store.finish_cell(cell)
    assert row.forwards == count
    held = store.outcome(row.key)
    assert held is not None
    assert held.pack() == outcome_of(count).pack()


def outcome_of(count: int) -> object:
    from bench.outcome import Outcome

    return Outcome.concatenate([outcome(128, chunk) for chunk in range(count)])


def test_a_server_restarted_between_writes_is_not_noticed(store: Store, postgres_server: Server) -> None:
    def restart() -> None:
        postgres_server.stop()
        postgres_server.start()

    write_chunks(store, 2, restart)


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_server_restarted_in_the_middle_of_writes_loses_nothing(
    store: Store, postgres_server: Server, how: str
) -> None:
    with restarting(postgres_server, (0.2, 0.7), how):
        write_chunks(store, 150, lambda: time.sleep(0.01))


def test_a_connection_lost_inside_a_transaction_is_tried_again(store: Store, postgres_server: Server) -> None:
    cell, calls = make_cell(n=128), []
    prepared(store, cell)

    @retry.lasting
    def write(store: Store) -> None:
        with store.writing() as session:
            session.execute(sa.text("UPDATE cells SET error = 'x'"))
            if not calls:
                calls.append(1)
                postgres_server.stop("immediate")
                postgres_server.start()
            session.execute(sa.text("UPDATE cells SET forwards = forwards + 1"))

    write(store)
    assert (store.cells()[0].error, store.cells()[0].forwards) == ("x", 1)


def test_a_server_that_stays_away_is_one_line(
    store: Store, postgres_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 3.0)
    postgres_server.stop()
    try:
        with pytest.raises(ConnectionLostError, match=r"tried for 3 s; nothing stored is lost") as error:
            store.begin_run({})
    finally:
        postgres_server.start()
    assert "\n" not in str(error.value)
    assert capsys.readouterr().err.count("trying again") == 1
    assert store.begin_run({}) >= 1


def test_who_holds_the_store_too_long_is_named(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    other = Store(url)
    with store.writing() as session:
        session.execute(sa.text("SELECT 1"))
        with pytest.raises(StoreError, match="another process held it"):
            other.begin_run({})


def test_who_falls_asleep_in_a_transaction_keeps_nobody_waiting(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_IDLE_SECONDS", 1)
    other = Store(url)

    def sleep() -> None:
        with store.writing() as session:
            session.execute(sa.text("INSERT INTO runs (created, provenance) VALUES (now(), '{}')"))
            assert other.begin_run({}) >= 1
            session.execute(sa.text("SELECT 1"))

    with pytest.raises(ConnectionLostError):
        sleep()
    with other.reading() as reading:
        assert reading.scalar(sa.text("SELECT count(*) FROM runs")) == 1
