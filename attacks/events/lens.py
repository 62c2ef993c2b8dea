"""How a network sees recordings: what an attacker on events must know of the dataset."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.grid import of_counts
from events import Framing, Recording


@dataclass(frozen=True)
class Lens:
    """The way from a list of events to what a network is given.

    Attributes:
        framing: the dataset's own.
        scale: the count that becomes 1.
        device: where the network is.
        pool: recordings of the training set with their labels, always the same ones in the same order, for attacks
            that take events from other recordings; they are read when asked for.
        labels: of the pool's recordings, in their order, so that nobody reads one to learn its class.

    Raises:
        ValueError: not one label for each recording of the pool.
    """

    framing: Framing
    scale: int
    device: torch.device
    pool: Sequence[tuple[Recording, int]] = ()
    labels: Sequence[int] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.pool):
            raise ValueError(f"a pool of {len(self.pool)} recordings needs as many labels, got {len(self.labels)}")

    def frames(self, recordings: Sequence[Recording]) -> Tensor:
        """Frames of counts as the dataset makes them, bit by bit: float32 [N, T, 2, H, W], counts / scale.

        Raises:
            ValueError: a sensor whose size is not a multiple of the frames'.
        """
        shape = (len(recordings), self.framing.T, 2, self.framing.height, self.framing.width)
        counts = np.zeros(shape, np.int32)
        for row, recording in enumerate(recordings):
            counts[row] = self.framing.frames(recording)
        return of_counts(torch.from_numpy(counts).to(self.device), self.scale, torch.float32)
