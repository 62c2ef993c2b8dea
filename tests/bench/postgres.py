"""A private PostgreSQL server to test with, from the programs that Debian, Homebrew and others install."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

NewDatabase = Callable[[], str]
PASSWORD = "s3cret/with@signs"


class Server:
    """One server with its data in a temporary folder; nothing of it is durable.

    Args:
        programs: folder of `initdb` and `pg_ctl`.
        folder: for data and socket; belongs to `user`.
        user: who runs it; PostgreSQL refuses root. None: whoever runs the tests.
    """

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.programs, self.folder, self.user = programs, folder, user
        self.made = 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as output:
            # A server that is started keeps a pipe open, and whoever reads it waits for ever.
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                user=self.user, cwd=self.folder, stdout=output, stderr=output, text=True, timeout=60, check=False,
                env={**os.environ, "LC_ALL": "C"},
            )  # fmt: skip
            output.seek(0)
            done.stdout = output.read()
        assert done.returncode == 0 or not check, done.stdout
        return done

    def create(self) -> None:
        self.run("initdb", "-D", "data", "-U", "owner", "--auth", "trust", "-E", "UTF8", "--locale", "C", "-N")
        rules = "host locked_out all 127.0.0.1/32 reject\nhost all reader,guarded 127.0.0.1/32 scram-sha-256\n"
        rules += "host all all 127.0.0.1/32 trust\nlocal all all trust\n"
        (self.folder / "data" / "pg_hba.conf").write_text(rules)

    def start(self) -> None:
        settings = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60"
        self.run("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "-o", settings, "start")

    def stop(self, how: str = "fast") -> None:
        self.run("pg_ctl", "-D", "data", "-m", how, "-w", "stop", check=False)

    def sql(self, text: str, database: str = "postgres") -> None:
        self.run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "owner", "-d", database, "-c", text)

    def new(self) -> str:
        """The URL of a database that was not there."""
        self.made += 1
        self.sql(f"CREATE DATABASE store{self.made}")
        return self.url(f"store{self.made}")

    def url(self, database: str, login: str = "owner") -> str:
        return f"postgresql+psycopg://{login}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server that runs for the whole session."""
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found += [Path(path).parent for path in [shutil.which("initdb")] if path]
    programs = next((path for path in found if (path / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed here")
    # A socket's path must be short, which pytest's folders are not.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="bench-pg-", dir=memory))
    user = None
    server = Server(programs, folder, user)
    try:
        if os.name == "posix" and os.geteuid() == 0:
            import pwd

            names = {entry.pw_name for entry in pwd.getpwall()}
            server.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(folder, server.user)
        try:
            server.create()
            server.start()
            server.sql(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
            server.sql(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'")
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"PostgreSQL cannot be started here: {error}")
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: Server) -> NewDatabase:
    """Gives the URL of a fresh database each time it is called."""
    return postgres_server.new
