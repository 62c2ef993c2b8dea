"""What a network says about recordings, and how what it says hangs on the counts."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.events.gains import Floats
from attacks.events.lens import Lens
from attacks.expectation import expected
from attacks.gradients import input_gradient
from attacks.gradients.estimation import active_estimation
from attacks.losses import margin
from attacks.walk import LEAST_ROWS
from events import Recording
from models.neurons import is_stochastic
from models.random import active_noise_stream

_ENTRIES, _MOST_ROWS = 1 << 25, 512


@dataclass(frozen=True)
class Sight:
    """A network as an attacker on a chunk of samples sees it, always through the dataset's own frames.

    A stochastic network's noise belongs to the sample and the moment: trials of one moment meet the same noise, however
    many there are and whoever else is in the batch. What it says is a mean over as many draws as gradients are averaged
    over.

    Attributes:
        model: maps frames [M, T, 2, H, W] to logits [M, K].
        y: labels of the N samples.
        lens: how it sees recordings.
        first_draw: number of the first draw of noise.
    """

    model: nn.Module
    y: Tensor
    lens: Lens
    first_draw: int = 0

    @classmethod
    def of(cls, model: nn.Module, y: Tensor, lens: Lens) -> "Sight":
        """From where the noise of the chunk now stands."""
        stream = active_noise_stream()
        return cls(model, y, lens, stream.next_draw if stream is not None else 0)

    @property
    def patient(self) -> bool:
        """Whether one wrong answer may be luck, so that no sample is left early."""
        return is_stochastic(self.model)

    def margins(self, rows: Sequence[int], recordings: Sequence[Recording], moment: int) -> Floats:
        """max_{j != y} z_j - z_y of recordings of the samples `rows`, float64 [M]."""

        def of_pass(frames: Tensor, y: Tensor) -> Tensor:
            return expected(self.model, frames, partial(margin, y=y))

        return self._passes(rows, recordings, moment, of_pass)

    def slopes(self, rows: Sequence[int], recordings: Sequence[Recording], moment: int) -> Floats:
        """Derivative of the margin in each count, float64 [M, T, 2, H, W]."""

        def of_pass(frames: Tensor, y: Tensor) -> Tensor:
            return input_gradient(self.model, frames, y, margin).grad / self.lens.scale

        return self._passes(rows, recordings, moment, of_pass)

    def at(self, rows: Sequence[int], moment: int) -> "_At":
        """A block in which the network's noise is that of some samples at some moment."""
        return _At(self, rows, moment)

    def _passes(
        self,
        rows: Sequence[int],
        recordings: Sequence[Recording],
        moment: int,
        of_pass: Callable[[Tensor, Tensor], Tensor],
    ) -> NDArray[np.float64]:
        framing, found = self.lens.framing, []
        entries = framing.T * 2 * framing.height * framing.width
        most = min(max(_ENTRIES // entries, LEAST_ROWS), _MOST_ROWS)
        for start in range(0, len(rows), most):
            part, shown = list(rows[start : start + most]), list(recordings[start : start + most])
            wanted = len(part)
            # Kernels sum few rows in another order, so that a sample's bits would hang on its neighbours.
            missing = max(LEAST_ROWS - wanted, 0)
            part, shown = part + part[-1:] * missing, shown + shown[-1:] * missing
            with self.at(part, moment):
                values = of_pass(self.lens.frames(shown), self.y[torch.tensor(part, device=self.y.device)])
            found.append(values[:wanted].double().cpu().numpy())
        return np.concatenate(found)


class _At:
    def __init__(self, sight: Sight, rows: Sequence[int], moment: int) -> None:
        self._stream = active_noise_stream()
        index = torch.tensor(rows, device=sight.y.device)
        self._block = nullcontext() if self._stream is None else self._stream.rows(index)
        self._draw = sight.first_draw + moment * active_estimation().draws

    def __enter__(self) -> None:
        self._block.__enter__()
        if self._stream is not None:
            self._stream.seek(self._draw)

    def __exit__(self, *error: object) -> None:
        self._block.__exit__(*error)  # type: ignore[arg-type]
