"""Which file systems are those of other machines, and who is told."""

from pathlib import Path

import pytest

from bench.store import Store, engine, filesystem
from bench.store.filesystem import file_system, network_file_system

MOUNTS = r"""
rootfs / rootfs rw 0 0
/dev/sda1 / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/me/local xfs rw 0 0
//nas/share /mnt/a\040b\134c cifs rw 0 0
me@host:/ /mnt/ssh fuse.sshfs rw 0 0
tmpfs /home/me/local/memory tmpfs rw 0 0
automount /net autofs rw 0 0
server:/x /net nfs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/results", "ext4"),
        ("/home/me/results/bench.sqlite", "nfs4"),
        ("/homes/me", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/local/bench.sqlite", "xfs"),
        ("/home/me/localized", "nfs4"),
        ("/home/me/local/memory/x", "tmpfs"),
        (r"/mnt/a b\c/results", "cifs"),
        ("/mnt/ssh/x", "fuse.sshfs"),
        ("/net/x", "nfs"),
    ],
)
def test_the_longest_mount_point_that_holds_a_path_says_what_it_is_on(path: str, kind: str) -> None:
    assert file_system(path, MOUNTS) == kind


def test_nothing_is_known_without_mounts() -> None:
    assert file_system("/home", "") is None


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "lustre", "gpfs", "beegfs")),
        *((kind, True) for kind in ("ceph", "afs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", "nfsd", "apfs")),
    ],
)
def test_who_writes_to_another_machine_s_folder_is_told_once(
    kind: str, far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(filesystem, "file_system", lambda path, mounts: kind)
    path = tmp_path / "bench.sqlite"
    assert network_file_system(path) == (kind if far else None)
    for _ in range(2):
        Store(path).close()
    Store(path, reading=True).close()
    said = capsys.readouterr().err
    assert said.count("\n") == far
    if far:
        assert f"warning: the store '{path}' is on a network file system ({kind})" in said
        assert "--results" in said
        assert "--store postgresql" in said


def test_reading_there_is_no_reason_to_warn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(tmp_path / "bench.sqlite").close()
    monkeypatch.setattr(filesystem, "file_system", lambda path, mounts: "nfs4")
    Store(tmp_path / "bench.sqlite", reading=True).close()
    assert capsys.readouterr().err == ""


def test_a_folder_where_no_write_ahead_log_can_be_kept_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    class NoLog(sqlite3.Cursor):
        def execute(self, text: str, *rest: object) -> sqlite3.Cursor:  # type: ignore[override]
            # As SQLite does where memory cannot be shared: the mode stays what it was, without an error.
            return super().execute("PRAGMA journal_mode = DELETE" if "journal_mode" in text else text, *rest)

    class Connection(sqlite3.Connection):
        def cursor(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]
            return super().cursor(NoLog)

    connect = sqlite3.connect
    monkeypatch.setattr(
        engine.sa, "create_engine",
        lambda url, create=engine.sa.create_engine, **more: create(
            url, **more | {"creator": lambda: connect(url.database, factory=Connection, check_same_thread=False)}
        ),
    )  # fmt: skip
    Store(tmp_path / "bench.sqlite").close()
    said = capsys.readouterr().err
    assert "cannot keep a write-ahead log there (its journal mode is 'delete')" in said
    assert said.count("\n") == 1


def test_a_store_that_lost_its_log_s_mode_gets_it_back(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "bench.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
