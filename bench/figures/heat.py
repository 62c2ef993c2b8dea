"""Where the logit of an image's class depends on its pixels (TGO, Fig. 5)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from bench.data.stills import stills
from bench.evidence.heatmap import Heatmap, heatmaps
from bench.figures.style import caption, new_figure, styled
from bench.figures.subjects import Subject


def measure(shown: Sequence[Subject]) -> dict[str, tuple[Heatmap, ...]]:
    """Heat maps by network."""
    return {subject.name: heatmaps(subject.model, subject.x, subject.y, subject.probe) for subject in shown}


def draw(found: Mapping[str, Sequence[Heatmap]], x: Tensor, classes: Sequence[str], about: str) -> Figure:
    """A column for each image: the image, then a heat map for each network, each on its own scale."""
    names, count = list(found), len(x)
    pictures = stills(x.detach().cpu()).numpy().transpose(0, 2, 3, 1)
    with styled():
        figure = new_figure(max(0.95 * count + 0.5, 3.0), 1.15 * (len(names) + 1) + 0.8)
        grid = figure.subplots(len(names) + 1, count, squeeze=False)
        for i in range(count):
            picture = pictures[i] if pictures.shape[-1] == 3 else pictures[i, :, :, 0]
            grid[0, i].imshow(picture, cmap="gray", vmin=0, vmax=1)
            grid[0, i].set_title(classes[found[names[0]][i].label], fontsize=6)
            for row, name in enumerate(names, 1):
                heat = found[name][i]
                grid[row, i].imshow(np.asarray(heat.values), cmap="inferno", vmin=0)
                sparse = "-" if heat.hoyer is None else f"{heat.hoyer:.2f}"
                grid[row, i].set_xlabel(f"{sparse}, {100 * heat.zero_share:.0f}%", fontsize=6)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
        for row, name in enumerate(["image", *names]):
            grid[row, 0].set_ylabel(name)
        caption(figure, f"{sentence(found)} {count} test images. {about}", max(20 * count + 8, 60))
    return figure


def sentence(found: Mapping[str, Sequence[Heatmap]]) -> str:
    """What the numbers under the maps are, and their means."""
    means = []
    for name, maps in found.items():
        known = [heat.hoyer for heat in maps if heat.hoyer is not None]
        zero = np.mean([heat.zero_share for heat in maps])
        means.append(f"{name} {np.mean(known):.2f}, {100 * zero:.0f}%" if known else f"{name} -, {100 * zero:.0f}%")
    return (
        "|gradient of the true class's logit| summed over channels, each map on its own scale. Below: Hoyer's "
        f"sparseness, and share of zeros; means: {'; '.join(means)}."
    )
