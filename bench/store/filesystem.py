"""File systems on which SQLite is not at home: those of other machines."""

import re
import sys
from pathlib import Path, PurePosixPath

_NETWORK = re.compile(
    r"nfs4?|cifs|smb\d?|smbfs|sshfs|fuse\..+|9p|lustre|gpfs|mmfs|beegfs|beegfs_nodev|ceph|afs|openafs"
)
_told: set[tuple[str, str]] = set()


def file_system(path: str, mounts_text: str) -> str | None:
    """The type of the file system that a path is on, as the kernel calls it: `ext4`, `nfs4`, `fuse.sshfs`.

    Args:
        path: absolute, without symbolic links.
        mounts_text: what /proc/mounts says; the last of several mounts on one point is the one that is seen.

    Returns:
        None if no mount point contains the path.
    """
    held, longest = None, -1
    for line in mounts_text.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # The kernel writes a blank in a name as \040.
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[1])
        if PurePosixPath(path).is_relative_to(point) and len(point) >= longest:
            held, longest = fields[2], len(point)
    return held


def network_file_system(path: Path) -> str | None:
    """The type of the file system of a file that is, or will be, on another machine; None of a local one.

    On systems without /proc/mounts nothing is known, and every file counts as local.
    """
    try:
        kind = file_system(str(path.resolve()), Path("/proc/mounts").read_text(errors="replace"))
    except (OSError, RuntimeError):
        return None
    return kind if kind is not None and _NETWORK.fullmatch(kind) else None


def warn_once(path: Path, what: str) -> None:
    """Say on stderr that a store is where parallel runs may harm it, and what to do; once for each store and reason."""
    if (str(path), what) in _told:
        return
    _told.add((str(path), what))
    print(
        f"warning: the store '{path}' {what}: runs at the same time may wait for each other, and several machines may "
        "damage it; use a local folder (--results or --store), or PostgreSQL (--store postgresql+psycopg://...)",
        file=sys.stderr,
    )
