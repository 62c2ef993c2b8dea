"""Is a submission what it says? All that can be told without attacking anything."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attacks.base import Attack
from bench.canonical import canonical_json
from bench.data import Dataset, load_dataset
from bench.errors import BenchError, describe
from bench.exchange.bundle import Parcel
from bench.leaderboard.submission import Submission
from bench.names import without_eot
from bench.plan import recordings_hash, setting_of
from bench.registry import ATTACKS, MODELS
from bench.resolve import parse_attack, parse_defense
from bench.respec import cell_from_json
from bench.spec import EVALUATION_VERSION, CellSpec, identity_of, is_noisy, noise_version

Known = tuple[CellSpec, Dataset]
"""A cell that is what it says, and the images it was measured on."""


def checked_cells(submission: Submission, data_dir: Path) -> dict[str, Known]:
    """Check every cell of a submission, sampled or not: attack, model, images, weights, and what it is called.

    Names are what readers see and what a ranking goes by, and no part of a cell's key: so each must lead to the
    specification under it.

    Args:
        submission: from `read_submission`.
        data_dir: where datasets are.

    Returns:
        the cells and their images by key.

    Raises:
        BenchError: something is not what it says, or unknown here.
    """
    datasets: dict[str, Dataset] = {}
    found = {}
    for parcel in submission.bundle.cells:
        try:
            cell = _cell(parcel)
            _check_weights(submission, parcel, cell)
            if cell.dataset not in datasets:
                datasets[cell.dataset] = load_dataset(cell.dataset, data_dir)
            _check_images(cell, datasets[cell.dataset])
            _check_name(parcel, cell, datasets[cell.dataset])
            _check_defense(submission, parcel, cell, datasets[cell.dataset])
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
            # Whoever wrote the file chose every value in it, and of which type.
            raise BenchError(f"cell {parcel.key[:12]} is damaged: {describe(error)}") from error
        found[parcel.key] = (cell, datasets[cell.dataset])
    _check_clean(submission)
    return found


def _cell(parcel: Parcel) -> CellSpec:
    labels, spec = parcel.labels, parcel.spec
    for name in ("dataset", "defense", "attack", "model", "norm", "eps"):
        text = labels[name]
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= 200:
            raise BenchError(f"cell {parcel.key[:12]}: its {name} is not a name of 1 to 200 printable characters")
    whole = (labels["seed"], spec["n"], spec["draws"], spec["attack_seed"], spec["model"]["T"], spec["attack"]["steps"])
    if any(type(number) is not int for number in whole):
        raise BenchError(f"cell {parcel.key[:12]}: seeds, n, draws, T and steps are integers")
    cell = cell_from_json(
        spec, dataset=labels["dataset"], defense_name=labels["defense"], seed=labels["seed"],
        attack_name=labels["attack"],
    )  # fmt: skip
    stale = cell.noise_version != noise_version(cell)
    if (cell.version, cell.dtype) != (EVALUATION_VERSION, "float32") or stale:
        raise BenchError(f"cell {parcel.key[:12]} was scored by other rules; measure again with this release")
    _check_attack(parcel, cell)
    if ":" in cell.model.name:
        # It names a file to be run, and a submission is anyone's.
        raise BenchError(
            f"model '{cell.model.name}' is named by where its code is; a submission may use registered models only: "
            "register it in a plug-in"
        )
    if MODELS.entry(cell.model.name).fingerprint() != cell.model.fingerprint:
        raise BenchError(f"the code of model '{cell.model.name}' is not what the cells were measured with")
    return cell


def _check_attack(parcel: Parcel, cell: CellSpec) -> None:
    family, name = cell.attack.family, cell.attack.name
    if family not in ATTACKS:
        raise BenchError(f"attack '{family}' is not known here; a submission may use registered attacks only")
    known: Attack = ATTACKS.get(family)
    if known.version != cell.attack.version:
        raise BenchError(
            f"attack '{name}' was run in version {cell.attack.version}, here is {known.version}; "
            "measure again with this release and submit that"
        )


def _check_name(parcel: Parcel, cell: CellSpec, dataset: Dataset) -> None:
    """An attack must be what its name says, within the bounds of the images that it attacked."""
    name = cell.attack.name
    meant = parse_attack(name, str(cell.attack.eps), cell.attack.norm, box=dataset.box)
    if not is_noisy(cell):
        meant = replace(meant, eot=1, name=without_eot(meant.name))
    if meant.name != name or canonical_json(identity_of(meant)) != canonical_json(parcel.spec["attack"]):
        raise BenchError(f"cell {parcel.key[:12]} is called '{name}' and is not what that attack is here; refused")


def _check_weights(submission: Submission, parcel: Parcel, cell: CellSpec) -> None:
    known = submission.bundle.weights[parcel.weights_key]
    kind, _, name = parcel.weights_key.partition(":")
    if kind not in ("train", "file"):
        raise BenchError(f"weights {parcel.weights_key[:18]} are somebody else's; submit networks of your own")
    spec = known["spec"]
    stated = known["sha256"] if kind == "file" else hashlib.sha256(canonical_json(spec).encode()).hexdigest()
    if name != stated or spec["model"] != parcel.spec["model"]:
        raise BenchError(f"weights {parcel.weights_key[:18]} are not what their name says; refused")
    if kind == "train" and spec["seed"] != cell.seed:
        raise BenchError(f"cell {parcel.key[:12]} is called seed {cell.seed}, its weights are of seed {spec['seed']}")


def _check_images(cell: CellSpec, dataset: Dataset) -> None:
    if dataset.test_hash != cell.test_hash or recordings_hash(cell.attack, dataset) != cell.recordings:
        raise BenchError(f"the test images of '{cell.dataset}' are not those that the cells were measured on")
    shape = (cell.model.num_classes, tuple(cell.model.in_shape))
    frames = cell.model.T if cell.model.frames else None
    known = (dataset.num_classes, dataset.in_shape)
    if not 1 <= cell.n <= len(dataset.x_test) or shape != known or frames != dataset.frames:
        raise BenchError(f"a cell has {cell.n} images of shape {shape[1]}, which '{cell.dataset}' has not")


def _check_defense(submission: Submission, parcel: Parcel, cell: CellSpec, dataset: Dataset) -> None:
    """A defense that is known here must be that one; what is unknown here may be called anything else."""
    stated: Mapping[str, Any] = submission.bundle.weights[parcel.weights_key]["spec"]
    if "defense" not in stated:
        return
    try:
        defense = parse_defense(cell.defense_name).settled(setting_of(dataset, cell.model.name, cell.model.T))
    except BenchError:
        return
    if canonical_json(identity_of(tuple(defense.identity()))) != canonical_json(stated["defense"]):
        raise BenchError(f"cell {parcel.key[:12]} is called '{cell.defense_name}' and was trained as something else")


def _check_clean(submission: Submission) -> None:
    """What a network does without attack is the same in all of its cells, whatever attacked it there."""
    first: dict[str, Parcel] = {}
    for parcel in submission.bundle.cells:
        one, two = first.setdefault(parcel.weights_key, parcel).outcome.clean, parcel.outcome.clean
        n, draws = (min(sizes) for sizes in zip(one.shape, two.shape, strict=True))
        if not np.array_equal(one[:n, :draws], two[:n, :draws]):
            raise BenchError(f"cell {parcel.key[:12]} has other clean predictions than its network's other cells")
