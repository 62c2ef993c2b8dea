"""Weights on disk: safetensors only, written atomically, checked before they are believed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bench.atomic import write_atomically as write_atomically
from bench.errors import BenchError


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
    """Tensors under the names that a model has, where theirs differ by the wrapper that one of the two was saved in.

    Wrappers put a word before every name: `net.` of a network that was adapted here, `module.` of a parallel one.
    """
    best = tensors
    for given, wanted in (("", "net."), ("net.", ""), ("module.", ""), ("module.", "net.")):
        renamed = {wanted + name.removeprefix(given): value for name, value in tensors.items()}
        if len(set(renamed) & set(own)) > len(set(best) & set(own)) and len(renamed) == len(tensors):
            best = renamed
    return best


def load_into(model: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Copy tensors into a model that must match them exactly.

    Raises:
        BenchError: names, shapes or dtypes differ, or a value is not finite.
    """
    own = model.state_dict()
    tensors = _named_as(own, tensors)
    problems = [f"it lacks {name}" for name in own if name not in tensors]
    problems += [f"it has an extra {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {list(tensors[name].shape)} {tensors[name].dtype}, not {list(own[name].shape)} {own[name].dtype}"
        for name in own
        if name in tensors and (tensors[name].shape != own[name].shape or tensors[name].dtype != own[name].dtype)
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise BenchError(f"'{source}' holds another architecture: {shown}. Name the right one with --model")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BenchError(f"'{source}': {name} contains NaN or infinite values")
    model.load_state_dict(tensors)
