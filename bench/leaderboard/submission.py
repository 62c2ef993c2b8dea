"""An entry as a file: outcomes and weights, for somebody else's leaderboard."""

import base64
import io
import json
import lzma
import re
import shlex
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from attacks.threat import format_eps
from bench.atomic import write_atomically
from bench.checkpoint import hash_tensors, load_tensors
from bench.errors import BenchError
from bench.exchange.bundle import Bundle, bundle_json, bundle_of_json, collect_bundle
from bench.leaderboard.claims import line
from bench.resolve import parse_defense
from bench.store import CellRow, Store
from bench.training import checkpoint_path, kept_weights
from models.neurons import NeuronSpec

LARGEST = 2 << 30
"""Bytes that a submission may unpack to."""

LARGEST_ENTRY = 256 << 20
"""Bytes of its JSON text, which takes several times as much when read."""

_ENTRY = "entry.json"
_SAID = ("by", "paper", "url")
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
    apart = [row for row in rows if row.weights_key.partition(":")[0] not in ("train", "file")]
    if apart:
        raise BenchError(f"the network of cell {apart[0].key[:12]} was imported; whoever trained it can submit it")
    bundle = collect_bundle(store, rows, about)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_ENTRY, json.dumps(bundle_json(bundle), sort_keys=True))
        for key, known in bundle.weights.items():
            file = _checkpoint(key, known, checkpoints)
            if not file.is_file():
                raise BenchError(f"the weights '{file}' are not there; run the cells again, then submit")
            if hash_tensors(load_tensors(file)[0]) != known["sha256"]:
                raise BenchError(f"'{file}' holds other weights than its cells were measured on; run the cells again")
            archive.write(file, f"weights/{known['sha256']}.safetensors")
    write_atomically(path, buffer.getvalue())
    return len(bundle.cells)


def _checkpoint(key: str, known: Mapping[str, Any], checkpoints: Path) -> Path:
    kept = kept_weights(checkpoints, str(known["sha256"]))
    if kept.exists():
        return kept
    kind, _, name = key.partition(":")
    return checkpoint_path(checkpoints, name) if kind == "train" else Path(str(known["spec"].get("file", name)))


def keep_weights(submission: Submission, checkpoints: Path) -> None:
    """Put a submission's weights where audits and pictures find them, apart from those that were trained here.

    Raises:
        BenchError: the folder cannot be written.
    """
    for sha256, data in submission.weights.items():
        path = kept_weights(checkpoints, sha256)
        if not path.exists():
            write_atomically(path, data)


def audit_commands(submission: Submission, checkpoints: Path) -> list[str]:
    """What audits each network of a submission, once its weights are kept; one line for each."""
    lines = []
    for weights, known in submission.bundle.weights.items():
        parcel = next(parcel for parcel in submission.bundle.cells if parcel.weights_key == weights)
        model, usual = parcel.spec["model"], NeuronSpec()
        neuron, defense = model["neuron"], str(parcel.labels["defense"]).partition(" (")[0]
        try:
            parse_defense(defense)
        except BenchError:
            # What matters is the neuron that it runs with.
            defense = "vanilla" if neuron["kind"] == usual.kind else str(neuron["kind"])
        options = [
            ("--weights", kept_weights(checkpoints, str(known["sha256"])), None), ("-d", defense, None),
            ("--dataset", parcel.labels["dataset"], None), ("--model", model["name"], None),
            ("--norm", parcel.labels["norm"], "linf"), ("--eps", format_eps(Fraction(parcel.labels["eps"])), None),
            ("-T", model["T"], 4), ("--decay", neuron["decay"], usual.decay),
            ("--surrogate", neuron["surrogate"], usual.surrogate),
        ]  # fmt: skip
        # Names in it are the submitter's: quoted, they do nothing to whoever pastes the line.
        words = [f"{name} {shlex.quote(str(value))}" for name, value, default in options if value != default]
        lines.append(" ".join(["bench audit", *words]))
    return lines


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
            if archive.getinfo(_ENTRY).file_size > LARGEST_ENTRY:
                raise BenchError(f"'{path}' holds more than {LARGEST_ENTRY >> 20} MiB of text; refused")
            entry = json.loads(_read(archive, _ENTRY))
            _check_sizes(entry, path)
            weights = {
                found[1]: _read(archive, member.filename)
                for member in members
                if (found := _WEIGHTS.fullmatch(member.filename))
            }
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, EOFError, ValueError, RuntimeError) as error:
        raise BenchError(f"'{path}' is not a submission; write one with: bench leaderboard submit -o FILE") from error
    bundle = bundle_of_json(entry, str(path))
    about = {key: line(bundle.about[key], 200) for key in _SAID if isinstance(bundle.about.get(key), str)}
    lacking = [key for key, known in bundle.weights.items() if known.get("sha256") not in weights]
    if unnamed := weights.keys() - {known.get("sha256") for known in bundle.weights.values()}:
        raise BenchError(f"'{path}' holds weights {min(unnamed)[:12]}, which no cell names; refused")
    if lacking or not bundle.cells:
        what = f"weights {lacking[0][:18]}" if lacking else "cells"
        raise BenchError(f"'{path}' lacks {what}; write it again with: bench leaderboard submit")
    return Submission(bundle, weights, about)


def _check_sizes(entry: Any, path: Path) -> None:
    """Refuse outcomes that would unpack to more than any test set needs, before one is unpacked."""
    cells = entry.get("cells") if isinstance(entry, dict) else None
    total = 0
    for cell in cells if isinstance(cells, list) else ():
        packed = cell.get("outcome") if isinstance(cell, dict) else None
        head = base64.b64decode(packed[:16]) if isinstance(packed, str) else b""
        n, draws = (int.from_bytes(head[i : i + 4], "little") for i in (4, 8))
        total += n * (9 + draws)
    if total > LARGEST:
        raise BenchError(f"'{path}' would unpack to more than {LARGEST >> 30} GiB; refused")


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member, never more of it than it says it is: sizes in the directory may lie."""
    stated = archive.getinfo(name).file_size
    with archive.open(name) as file:
        data = file.read(stated + 1)
    if len(data) != stated:
        raise BenchError(f"'{name}' is not as large as the archive says; refused")
    return data
