"""Does a submission reproduce? A sample of its images is attacked again, here."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from attacks.base import Attack
from bench.checkpoint import load_into, load_tensors
from bench.data import Dataset, load_dataset
from bench.data.dataset import pixels
from bench.errors import BenchError
from bench.evaluation import evaluate
from bench.exchange.bundle import Parcel
from bench.hygiene import check_model
from bench.leaderboard.submission import Submission
from bench.outcome import Outcome
from bench.proposal import CHUNK
from bench.registry import ATTACKS, MODELS
from bench.respec import cell_from_json
from bench.spec import CellSpec
from bench.training import build_without_rng, hash_of

TOLERANCE = 0.01
"""Share of images whose outcome may differ: another processor rounds differently, and single spikes flip."""


@dataclass(frozen=True)
class Rerun:
    """One chunk that was attacked again.

    Attributes:
        defense, attack, key: of the cell.
        start, images: which images.
        differing: how many of them came out differently, with or without attack.
        claimed, found: how many stand under the attack's last iterate.
    """

    defense: str
    attack: str
    key: str
    start: int
    images: int
    differing: int
    claimed: float
    found: float


def verify(
    submission: Submission,
    data_dir: Path,
    device: torch.device,
    *,
    sample: int = 3,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    told: Callable[[Rerun], None] = lambda rerun: None,
) -> list[Rerun]:
    """Attack a random sample of a submission's images again, with its weights, and compare every outcome.

    Args:
        submission: from `read_submission`.
        data_dir: where datasets are.
        device: where to compute.
        sample: chunks of 128 images to attack again, of different cells as long as there are any; all if 0.
        seed: of the sample.
        tolerance: share of the sampled images that may differ.
        told: called after each chunk.

    Raises:
        BenchError: weights, data, attack or model are not what the cells say, or the outcomes do not come out.
    """
    models: dict[str, nn.Module] = {}
    reruns = []
    for parcel, start in _sampled(submission, sample, seed):
        cell = _cell(parcel)
        dataset = _images(cell, data_dir)
        if parcel.weights_key not in models:
            models[parcel.weights_key] = _model(submission, parcel, cell, dataset, device)
        done = frozenset(range(0, cell.n, CHUNK)) - {start}
        (result,) = evaluate(models[parcel.weights_key], dataset, [cell], device=device, done=done)
        rerun = _compared(parcel, start, result.outcomes[cell])
        told(rerun)
        reruns.append(rerun)
    images, differing = (sum(getattr(rerun, name) for rerun in reruns) for name in ("images", "differing"))
    if differing > tolerance * images:
        worst = max(reruns, key=lambda rerun: rerun.differing)
        raise BenchError(
            f"not reproduced: {differing} of {images} images came out differently, at most {tolerance:.1%} may; worst "
            f"is cell {worst.key[:12]} ({worst.defense}, {worst.attack}): {worst.claimed:g} of {worst.images} were "
            f"claimed to stand, {worst.found:g} do"
        )
    return reruns


def _sampled(submission: Submission, sample: int, seed: int) -> list[tuple[Parcel, int]]:
    """Chunks in random order, one of each cell before a second of any."""
    random = np.random.default_rng(seed)
    cells = [cell for cell in submission.bundle.cells if cell.spec["attack"]["family"] != "clean"]
    if not cells:
        raise BenchError("the submission holds no attacked cell")
    order = [cells[i] for i in random.permutation(len(cells))]
    starts = {cell.key: list(random.permutation(np.arange(0, cell.spec["n"], CHUNK))) for cell in order}
    rounds = max(len(of) for of in starts.values())
    chosen = [(c, int(starts[c.key][r])) for r in range(rounds) for c in order if r < len(starts[c.key])]
    return chosen if sample == 0 else chosen[:sample]


def _cell(parcel: Parcel) -> CellSpec:
    labels: Mapping[str, object] = parcel.labels
    cell = cell_from_json(
        parcel.spec, dataset=str(labels["dataset"]), defense_name=str(labels["defense"]),
        seed=int(str(labels["seed"])), attack_name=str(labels["attack"]),
    )  # fmt: skip
    family = cell.attack.family
    if family not in ATTACKS:
        raise BenchError(f"attack '{family}' is not known here; a submission may use registered attacks only")
    known: Attack = ATTACKS.get(family)
    if known.version != cell.attack.version:
        raise BenchError(
            f"attack '{cell.attack.name}' was run in version {cell.attack.version}, here is {known.version}; "
            "measure again with this release and submit that"
        )
    return cell


def _images(cell: CellSpec, data_dir: Path) -> Dataset:
    dataset = load_dataset(cell.dataset, data_dir)
    if dataset.test_hash != cell.test_hash:
        raise BenchError(f"the test images of '{cell.dataset}' are not those that the cells were measured on")
    return dataset


def _model(submission: Submission, parcel: Parcel, cell: CellSpec, dataset: Dataset, device: torch.device) -> nn.Module:
    stated = str(submission.bundle.weights[parcel.weights_key]["sha256"])
    if MODELS.entry(cell.model.name).fingerprint() != cell.model.fingerprint:
        raise BenchError(f"the code of model '{cell.model.name}' is not what the cells were measured with")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{stated[:12]}.safetensors"
        path.write_bytes(submission.weights[stated])
        tensors, _ = load_tensors(path)
        model = build_without_rng(cell.model)
        load_into(model, tensors, path)
    if hash_of(model) != stated:
        raise BenchError(f"the weights of {parcel.labels['defense']} are not those that its cells name; refused")
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    check_model(model, pixels(dataset.x_test[:32], device), dataset.num_classes)
    return model


def _compared(parcel: Parcel, start: int, found: Outcome) -> Rerun:
    part = slice(start, start + found.n)
    claimed = parcel.outcome
    differs = np.zeros(found.n, bool)
    for name in ("clean", "last", "best"):
        differs |= (getattr(claimed, name)[part] != getattr(found, name)).any(1)
    return Rerun(
        str(parcel.labels["defense"]), str(parcel.labels["attack"]), parcel.key, start, found.n, int(differs.sum()),
        float(claimed.robust_last[part].sum()), float(found.robust_last.sum()),
    )  # fmt: skip
