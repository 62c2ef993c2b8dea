"""Test images without and under attack, and what changed."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from bench.figures.style import caption, new_figure, styled


def draw_pictures(x: Sequence[Tensor], x_adv: Sequence[Tensor], titles: Sequence[str], about: str) -> Figure:
    """A row for each image: clean, attacked, and their difference, enlarged to the whole range around grey.

    Args:
        x, x_adv: images [C, H, W] in [0, 1], with 1 or 3 channels.
        titles: a line above each row.
        about: what cell it is, for the caption.
    """
    with styled():
        figure = new_figure(5.4, 1.85 * len(x) + 0.5)
        rows = figure.subfigures(len(x), 1, squeeze=False)[:, 0]
        for row, clean, attacked, title in zip(rows, x, x_adv, titles, strict=True):
            row.suptitle(textwrap.fill(title, 85), fontsize=8, x=0.01, ha="left")
            change = (attacked - clean).double()
            largest = float(change.abs().max())
            shown = (clean, attacked, 0.5 + change / (2 * largest or 1))
            times = f"difference, x{0.5 / largest:.0f}" if largest else "difference: none"
            for axes, image, name in zip(row.subplots(1, 3), shown, ("clean", "attacked", times), strict=True):
                picture = np.clip(image.numpy().transpose(1, 2, 0), 0, 1)
                axes.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[], xlabel=name)
                for spine in axes.spines.values():
                    spine.set(visible=True, color="#BBBBBB", linewidth=0.6)
        caption(figure, f"Difference: grey is no change; each on its own scale. {about}", 105)
    return figure
