"""What a network makes of recordings, seen as it sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.combinators import seek
from attacks.events.lens import Lens
from attacks.expectation import expected
from attacks.gradients.estimation import active_estimation
from attacks.losses import margin
from attacks.walk import at_least, part_of_batch
from events import Recording
from models.random import active_noise_stream


class Reframed:
    """The true margins of recordings of a batch, under the same noise each time.

    An attack that compares what it tried must not take luck for success, and must not draw other noise because other
    samples of the batch needed more tries.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        y: true labels [N].
        lens: how the network sees recordings.
    """

    def __init__(self, model: nn.Module, y: Tensor, lens: Lens) -> None:
        self.model, self.y, self.lens = model, y, lens
        stream = active_noise_stream()
        self._draw = stream.next_draw if stream is not None else 0

    def margins(self, recordings: Sequence[Recording], rows: Tensor | None = None) -> Tensor:
        """max_{j != y} z_j - z_y, mean over as many draws of noise as gradients are averaged over.

        Args:
            recordings: of the whole batch, [N].
            rows: numbers of those that matter, ascending, [M]; all if not given.

        Returns:
            [N], or [M] in the order of `rows`.
        """
        rows = torch.arange(len(recordings), device=self.y.device) if rows is None else rows
        batch = at_least(rows, len(recordings))
        frames, labels = self.lens.frames([recordings[row] for row in batch.tolist()]), self.y[batch]
        self.seek(0)
        with part_of_batch(batch, len(recordings)):
            found = expected(self.model, frames, lambda logits: margin(logits, labels))
        return found if len(batch) == len(rows) else found[torch.searchsorted(batch, rows)]

    def seek(self, moment: int) -> None:
        """Make the next pass draw the noise of a moment: that of margins is 0."""
        seek(self._draw + moment * active_estimation().draws)
