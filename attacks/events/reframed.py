"""What a network makes of recordings, seen as it sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.events.lens import Lens
from attacks.expectation import expected
from attacks.losses import margin
from attacks.walk import at_least, part_of_batch
from events import Recording


def reframed_margins(
    model: nn.Module, recordings: Sequence[Recording], y: Tensor, lens: Lens, rows: Tensor | None = None
) -> Tensor:
    """max_{j != y} z_j - z_y of each recording, framed anew, mean over the draws of the attack's estimate: [N].

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        lens: how the network sees them.
        rows: numbers of those that matter, ascending, [M]; all if not given.

    Returns:
        [N], or [M] in the order of `rows`.
    """
    if rows is None:
        rows = torch.arange(len(recordings), device=y.device)
    batch = at_least(rows, len(recordings))
    frames, labels = lens.frames([recordings[row] for row in batch.tolist()]), y[batch]
    with part_of_batch(batch, len(recordings)):
        found = expected(model, frames, lambda logits: margin(logits, labels))
    return found if len(batch) == len(rows) else found[torch.searchsorted(batch, rows)]
