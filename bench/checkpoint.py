"""Weights on disk: safetensors only, written atomically, checked before they are believed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bench.atomic import write_atomically as write_atomically
from bench.errors import BenchError

_SHOWN = 3
"""Names of each kind in a message."""


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """Write tensors with JSON metadata; returns the SHA-256 of the tensors alone."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(plain, {"bench": json.dumps(metadata, sort_keys=True)}))
    return hash_tensors(plain)


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, independent of file layout."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        # As bytes, since numpy does not know every dtype.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a safetensors file written by anyone; the metadata is empty for others' files.

    Raises:
        BenchError: missing, damaged, or another format. A pickle is recognised and never opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise BenchError(f"cannot read weights '{path}': {error.strerror}") from error
    # A safetensors file begins with its header's length, whose bytes may look like anything, then the JSON header.
    looks_right = head[8:9] == b"{"
    if not looks_right and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise BenchError(
            f"'{path}' is a pickle (torch.save) file, which can run code when opened, so it was not; "
            "convert it in the environment that made it with safetensors.torch.save_file(state_dict, 'w.safetensors')"
        )
    if not looks_right and head.lstrip()[:1] == b"<":
        raise BenchError(
            f"'{path}' is an HTML page, not weights: the download fetched a web page; fetch the file itself"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get("bench", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise BenchError(f"'{path}' is not a readable safetensors file ({error}); it may be truncated") from error
    return tensors, metadata if isinstance(metadata, dict) else {}


def _named_as(own: Mapping[str, Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that a model has, where theirs differ by the wrappers that one of the two was saved in.

    A wrapper puts a word before every name: `net.` of a network that was adapted here, `module.` of a parallel one,
    any word of a user's module that normalises its input.
    """
    best, most = tensors, len(set(tensors) & set(own))
    for given in _wrappers(tensors):
        for wanted in _wrappers(own):
            renamed = {wanted + name.removeprefix(given): value for name, value in tensors.items()}
            if len(set(renamed) & set(own)) > most:
                best, most = renamed, len(set(renamed) & set(own))
    return best


def _wrappers(names: Iterable[str]) -> list[str]:
    """What stands before all of some dotted names, in whole words, the shortest (none) first."""
    words = [name.split(".")[:-1] for name in names]
    shared = 0
    while words and all(len(word) > shared and word[shared] == words[0][shared] for word in words):
        shared += 1
    return ["".join(f"{word}." for word in words[0][:count]) for count in range(shared + 1)] if words else [""]


def fitting(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Tensors as `load_state_dict` of a model takes them: under its names, and matching it exactly.

    Args:
        model: stays as it is.
        tensors: of a checkpoint.
        source: its file, for messages.

    Raises:
        BenchError: names, shapes or dtypes differ, or a value is not finite.
    """
    own = model.state_dict()
    tensors = _named_as(own, tensors)
    both = [name for name in own if name in tensors]
    lacking, extra = [name for name in own if name not in tensors], [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in both
        if tensors[name].shape != own[name].shape
    ]
    types = [
        f"{name} is {tensors[name].dtype}, not {own[name].dtype}"
        for name in both
        if tensors[name].dtype != own[name].dtype
    ]
    problems = []
    if lacking:
        problems.append(f"it lacks {_some(lacking)}")
    if extra:
        problems.append(f"it has an extra {_some(extra)}")
    problems += [_some(shapes)] if shapes else []
    if problems:
        raise BenchError(
            f"'{source}' holds another architecture: {'; '.join(problems)}. Name the right one, or the builder it was "
            "saved from, with --model"
        )
    if types:
        raise BenchError(f"'{source}' holds numbers of another type: {_some(types)}; save it with that type")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BenchError(f"'{source}': {name} contains NaN or infinite values")
    return tensors


def _some(names: list[str]) -> str:
    """The first few of many, so that one kind of problem does not hide the others."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def load_into(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors into a model that must match them exactly.

    Raises:
        BenchError: see `fitting`.
    """
    model.load_state_dict(fitting(model, tensors, source))
