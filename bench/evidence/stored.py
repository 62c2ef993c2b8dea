"""From a stored cell back to its network and its images."""

import shlex
from pathlib import Path

import torch
from torch import nn

from bench.checkpoint import load_into, load_tensors
from bench.data import Dataset, load_dataset
from bench.errors import BenchError
from bench.registry import MODELS
from bench.resolve import ball_version
from bench.respec import cell_from_json
from bench.spec import CellSpec, noise_version
from bench.store import CellRow, Store
from bench.training import build_without_rng, checkpoint_path, hash_of, kept_weights


def stored_cell(row: CellRow) -> CellSpec:
    """The specification of a stored cell.

    Raises:
        BenchError: the row is damaged or from a newer version, or its random numbers were another version's.
    """
    cell = cell_from_json(
        row.spec, dataset=row.dataset, defense_name=row.defense, seed=row.seed, attack_name=row.attack
    )
    if cell.noise_version != noise_version(cell) or cell.attack.ball_version != ball_version(cell.attack.norm):
        raise BenchError(
            f"cell {row.key[:12]} was measured with an older version's random numbers, which are not those that "
            "would be drawn now; run it again"
        )
    return cell


def stored_network(
    cell: CellSpec,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    weights_file: Path | None = None,
    model_name: str | None = None,
) -> nn.Module:
    """The network that a cell was measured on, with the very weights.

    Args:
        cell: from `stored_cell`.
        store: knows the weights' hash.
        checkpoints: folder of trained weights.
        device: where to put it.
        weights_file: where the weights lie now; where they were when the cell was measured if not given.
        model_name: of the model, as the user said it now: code that is named by its place is not run on the word of a
            store alone, which may be anyone's.

    Raises:
        BenchError: the checkpoint is missing or holds other weights, the architecture's code has changed, or it is a
            user's and was not named.
    """
    if ":" in cell.model.name and cell.model.name != model_name:
        raise BenchError(
            f"the cell's model is code of a file, '{cell.model.name}', which is run only if you name it; if you trust "
            f"it, add --model {shlex.quote(cell.model.name)}"
        )
    path, sha256 = stored_weights(cell.weights, store, checkpoints)
    path = weights_file or path
    fingerprint = MODELS.entry(cell.model.name).fingerprint()
    if fingerprint != cell.model.fingerprint:
        raise BenchError(f"the code of model '{cell.model.name}' is not what the cell was measured with; run it again")
    if not path.exists():
        raise BenchError(f"the weights '{path}' are not there; run the cell again, or name them with --weights")
    tensors, _ = load_tensors(path)
    model = build_without_rng(cell.model)
    load_into(model, tensors, path)
    if hash_of(model) != sha256:
        raise BenchError(f"'{path}' holds other weights than the cell was measured on; run it again")
    return model.to(device).to(memory_format=torch.channels_last).eval()


def stored_weights(weights: str, store: Store, checkpoints: Path) -> tuple[Path, str]:
    """The file where weights lie, if they are still there, and the SHA-256 that they must have.

    Args:
        weights: their key.
        store: knows their hash.
        checkpoints: folder of trained weights.

    Raises:
        BenchError: the store has no record of them.
    """
    kind, _, key = weights.partition(":")
    known = store.weights(weights)
    if known is None:
        raise BenchError(f"the store has no record of the weights {weights[:18]}; run the cell again")
    sha256 = str(known["sha256"])
    path = kept_weights(checkpoints, sha256)
    if not path.exists() and kind != "twin":
        path = checkpoint_path(checkpoints, key) if kind == "train" else Path(known["spec"]["file"])
    return path, sha256


def stored_images(cell: CellSpec, data_dir: Path, dataset: str | None = None) -> Dataset:
    """The dataset that a cell was measured on.

    Args:
        cell: from `stored_cell`.
        data_dir: where downloaded datasets are kept.
        dataset: its name or the path of its `.npz` file, where the cell's own label does not find it.

    Raises:
        BenchError: it cannot be loaded, or its test images are others.
    """
    try:
        found = load_dataset(dataset or cell.dataset, data_dir)
    except BenchError as error:
        if dataset:
            raise
        raise BenchError(f"{error}; for a dataset of your own give --dataset FILE.npz") from error
    if found.test_hash != cell.test_hash:
        raise BenchError(f"the test images of '{dataset or cell.dataset}' are not those that the cell was measured on")
    return found
