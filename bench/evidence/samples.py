"""Some samples of a stored cell, attacked again: what a network was shown, and what it said."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.threat import EVENTS
from attacks.gradients import frozen
from attacks.walk import LEAST_ROWS
from bench.arithmetic import computing
from bench.data import Dataset
from bench.data.events import EventDataset
from bench.edited import propose_edits
from bench.errors import BenchError
from bench.outcome import Outcome
from bench.proposal import CHUNK, propose
from bench.registry import ATTACKS
from bench.spec import CellSpec
from events import Recording
from models.random import derive_key, noise_stream


@dataclass(frozen=True, eq=False)
class Sample:
    """One test sample without and under attack.

    Attributes:
        number: in the test set.
        label: its class.
        clean, attacked: the class that the network names in most of the scoring draws.
        x, x_adv: what the network is given, [*].
        recording, edited: lists of events, where the attack edits these.
    """

    number: int
    label: int
    clean: int
    attacked: int
    x: Tensor
    x_adv: Tensor
    recording: Recording | None = None
    edited: Recording | None = None


def telling(outcome: Outcome, count: int) -> list[int]:
    """Numbers of the samples to show: those that the attack breaks in most draws, then others; both in their order."""
    broken = (outcome.clean.mean(1) > 0.5) & (outcome.robust_last < 0.5)
    return [*np.flatnonzero(broken).tolist(), *np.flatnonzero(~broken).tolist()][:count]


def attacked_samples(
    model: nn.Module,
    dataset: Dataset,
    cell: CellSpec,
    numbers: Sequence[int],
    device: torch.device,
    passed: Callable[[int], None] = lambda _: None,
) -> list[Sample]:
    """Run a cell's attack again for some of its samples, with the random numbers of its stored run.

    What an attack proposes for a sample does not depend on the others, so only as many are attacked along as kernels
    need to sum alike; all of a chunk where the attack makes batches of its own.

    Args:
        model: the cell's network; put back as it was.
        dataset: what the cell was measured on.
        cell: what was measured.
        numbers: of the samples, in the order wanted.
        device: where the network is.
        passed: is told of samples that went through the network.

    Raises:
        BenchError: the attack failed, or edits recordings and the dataset has none.
    """
    watched = _Watched(model, passed)
    found: dict[int, Sample] = {}
    with computing(model, "reference" if cell.attack.arithmetic == "reference" else "fast", device):
        for start in sorted({number // CHUNK * CHUNK for number in numbers}):
            mine = [number for number in numbers if number // CHUNK * CHUNK == start]
            for sample in _of_chunk(watched, dataset, cell, start, mine, device):
                found[sample.number] = sample
    return [found[number] for number in numbers]


def _of_chunk(
    model: nn.Module, dataset: Dataset, cell: CellSpec, start: int, mine: Sequence[int], device: torch.device
) -> list[Sample]:
    attack: Attack = ATTACKS.get(cell.attack.family)
    end = min(start + CHUNK, cell.n)
    edits = cell.attack.norm == EVENTS
    if attack.own_batches:
        rows = list(range(start, end))
    elif edits:
        others = [number for number in range(start, end) if number not in mine]
        rows = sorted([*mine, *others[: max(LEAST_ROWS - len(mine), 0)]])
    else:
        # Images are attacked from the first of the chunk on.
        rows = list(range(start, min(max(*mine, start + LEAST_ROWS - 1) + 1, end)))
    index = torch.tensor(rows)
    x, y = dataset.pixels(dataset.x_test[index], device), dataset.y_test[index].to(device)
    recordings: tuple[Recording, ...] = ()
    if not edits:
        last = propose(model, x, y, start, [cell])[cell.attack.steps].last
    elif isinstance(dataset, EventDataset):
        proposed = propose_edits(model, dataset, index, y, [cell])
        last, recordings = proposed.candidate.last, proposed.recordings
    else:
        raise BenchError(f"attack '{cell.attack.name}' edits recordings, and dataset '{dataset.name}' has none")
    names = [_named(model, some, index.to(device), cell) for some in (x, last)]
    return [
        Sample(
            number,
            int(y[row]),
            int(names[0][row]),
            int(names[1][row]),
            x[row].cpu(),
            last[row].detach().cpu(),
            *(
                (dataset.recordings_test[number], recordings[row])
                if isinstance(dataset, EventDataset) and edits
                else ()
            ),
        )
        for row, number in enumerate(rows)
        if number in mine
    ]


def _named(model: nn.Module, x: Tensor, samples: Tensor, cell: CellSpec) -> Tensor:
    """The class that the network names in most of the draws that the cell was scored by, [N]."""
    key = derive_key(cell.weights, cell.test_hash, "scoring noise")
    with frozen(model), torch.no_grad(), noise_stream(model, key, samples):
        votes = torch.stack([model(x).argmax(1) for _ in range(cell.draws)])
    return votes.mode(0).values.cpu()


class _Watched(nn.Module):
    """Passes calls on and tells of them."""

    def __init__(self, model: nn.Module, passed: Callable[[int], None]) -> None:
        super().__init__()
        self.model, self.passed = model, passed

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.passed(len(x))
        return logits
