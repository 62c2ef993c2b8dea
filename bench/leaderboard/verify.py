"""Does a submission reproduce? A sample of its images is attacked again, here."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.checkpoint import load_into, load_tensors
from bench.data import Dataset
from bench.errors import BenchError
from bench.evaluation import evaluate
from bench.exchange.bundle import Parcel
from bench.hygiene import check_model
from bench.leaderboard.checks import checked_cells
from bench.leaderboard.submission import Submission
from bench.outcome import Outcome
from bench.proposal import CHUNK
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
        differing: how many of them came out differently, with or without attack, or with other flags.
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
    known = checked_cells(submission, data_dir)
    # Each network has other weights: all are looked at, sampled or not, and one is held at a time.
    sampled = _sampled(submission, sample, seed)
    reruns = []
    cells = {parcel.key: parcel for parcel in submission.bundle.cells}
    for key in dict.fromkeys(parcel.weights_key for parcel in submission.bundle.cells):
        parcel = next(parcel for parcel in submission.bundle.cells if parcel.weights_key == key)
        model = _model(submission, parcel, *known[parcel.key], device)
        for name in dict.fromkeys(each.key for each, _ in sampled if each.weights_key == key):
            cell, dataset = known[name]
            starts = {start for each, start in sampled if each.key == name}
            # Of one cell in one run: some chunks are attacked together, whichever of them were asked for.
            done = frozenset(range(0, cell.n, CHUNK)) - starts
            for result in evaluate(model, dataset, [cell], device=device, done=done):
                rerun = _compared(cells[name], result.start, result.outcomes[cell])
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


def _model(submission: Submission, parcel: Parcel, cell: CellSpec, dataset: Dataset, device: torch.device) -> nn.Module:
    stated = str(submission.bundle.weights[parcel.weights_key]["sha256"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{stated[:12]}.safetensors"
        path.write_bytes(submission.weights[stated])
        tensors, _ = load_tensors(path)
        model = build_without_rng(cell.model)
        load_into(model, tensors, path)
    if hash_of(model) != stated:
        raise BenchError(f"the weights of {parcel.labels['defense']} are not those that its cells name; refused")
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    check_model(model, dataset.pixels(dataset.x_test[:32], device), dataset.num_classes)
    return model


def _compared(parcel: Parcel, start: int, found: Outcome) -> Rerun:
    part = slice(start, start + found.n)
    claimed = parcel.outcome
    differs = np.zeros(found.n, bool)
    for name in ("clean", "last", "best"):
        differs |= (getattr(claimed, name)[part] != getattr(found, name)).any(1)
    # They decide the verdict: a submission that hides its ties or zero gradients would not be suspect.
    differs |= claimed.flags[part] != found.flags
    return Rerun(
        str(parcel.labels["defense"]), str(parcel.labels["attack"]), parcel.key, start, found.n, int(differs.sum()),
        float(claimed.robust_last[part].sum()), float(found.robust_last.sum()),
    )  # fmt: skip
