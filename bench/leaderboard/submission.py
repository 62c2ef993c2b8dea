"""An entry as a file: outcomes and weights, for somebody else's leaderboard."""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checkpoint import write_atomically
from bench.errors import BenchError
from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.store import CellRow, Store
from bench.training import checkpoint_path

LARGEST = 2 << 30
"""Bytes that a submission may unpack to."""

_ENTRY = "entry.json"
_WEIGHTS = re.compile(r"weights/([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class Submission:
    """What a file holds; nothing of it has been measured again yet.

    Attributes:
        bundle: cells and what is said of their weights.
        weights: SHA-256 of the tensors, as stated -> the bytes of a safetensors file.
        about: what the submitter says: `by`, `paper`, `url`.
    """

    bundle: Bundle
    weights: Mapping[str, bytes]
    about: Mapping[str, str]


def write_submission(
    path: Path, store: Store, rows: Sequence[CellRow], checkpoints: Path, about: Mapping[str, str]
) -> int:
    """Write finished cells and their weights into a zip file; returns how many cells.

    Raises:
        BenchError: a cell is invalid, a checkpoint is missing, or the file cannot be written.
    """
    invalid = [row for row in rows if row.verdict == "invalid"]
    if invalid:
        raise BenchError(f"cell {invalid[0].key[:12]} is invalid and cannot be submitted; leave it out with -d and -a")
    bundle = collect_bundle(store, rows, about)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_ENTRY, json.dumps(bundle_json(bundle), sort_keys=True))
        for key, known in bundle.weights.items():
            file = _checkpoint(key, known, checkpoints)
            if not file.exists():
                raise BenchError(f"the weights '{file}' are not there; run the cells again, then submit")
            archive.write(file, f"weights/{known['sha256']}.safetensors")
    write_atomically(path, buffer.getvalue())
    return len(bundle.cells)


def _checkpoint(key: str, known: Mapping[str, Any], checkpoints: Path) -> Path:
    kind, _, name = key.partition(":")
    return checkpoint_path(checkpoints, name) if kind == "train" else Path(str(known["spec"].get("file", name)))


def read_submission(path: Path) -> Submission:
    """Read what `write_submission` wrote, refusing whatever else a zip file can hold.

    Raises:
        BenchError: missing, damaged, too large, with members of other names, or with cells that do not fit their keys.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                if member.filename != _ENTRY and not _WEIGHTS.fullmatch(member.filename):
                    raise BenchError(f"'{path}' holds '{member.filename[:80]}', which no submission holds; refused")
            if len({member.filename for member in members}) != len(members):
                raise BenchError(f"'{path}' holds a file twice; refused")
            if sum(member.file_size for member in members) > LARGEST:
                raise BenchError(f"'{path}' would unpack to more than {LARGEST >> 30} GiB; refused")
            entry = json.loads(_read(archive, _ENTRY))
            weights = {
                found[1]: _read(archive, member.filename)
                for member in members
                if (found := _WEIGHTS.fullmatch(member.filename))
            }
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, ValueError, RuntimeError) as error:
        raise BenchError(f"'{path}' is not a submission; write one with: bench leaderboard submit -o FILE") from error
    bundle = bundle_of_json(entry, str(path))
    about = {str(key): str(value)[:200] for key, value in bundle.about.items() if isinstance(value, str)}
    lacking = [key for key, known in bundle.weights.items() if known.get("sha256") not in weights]
    if lacking or not bundle.cells:
        what = f"weights {lacking[0][:18]}" if lacking else "cells"
        raise BenchError(f"'{path}' lacks {what}; write it again with: bench leaderboard submit")
    return Submission(bundle, weights, about)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, never more of it than it says it is: sizes in the directory may lie."""
    stated = archive.getinfo(name).file_size
    with archive.open(name) as file:
        data = file.read(stated + 1)
    if len(data) != stated:
        raise BenchError(f"'{name}' is not as large as the archive says; refused")
    return data
