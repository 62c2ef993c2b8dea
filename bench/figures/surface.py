"""The loss around the weights and around the images (TGO, Fig. 4, second half, and Appendix F)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.evidence.landscape import Plane, input_plane, weight_plane
from bench.figures.style import caption, new_figure, styled
from bench.figures.subjects import Subject


def measure(shown: Sequence[Subject], grid: int) -> dict[str, tuple[Plane, Plane]]:
    """Planes of weights and of inputs around each network under its attack, cross-entropy, `grid` points a side."""
    found = {}
    for subject in shown:
        attacked = subject.attacked()
        found[subject.name] = (
            weight_plane(subject.model, attacked, subject.y, subject.probe, "ce", grid),
            input_plane(subject.model, subject.x, subject.y, subject.probe, subject.threat, "ce", grid),
        )
    return found


_TITLES = ("around the weights,\nattacked images", "around the images")


def draw(found: Mapping[str, tuple[Plane, Plane]], about: str, count: int) -> Figure:
    """For each kind of plane a row of surfaces and a row of contours, all networks on one scale."""
    names = list(found)
    with styled():
        figure = new_figure(2.6 * len(names) + 0.6, 8.6)
        for kind in range(2):
            planes = [found[name][kind] for name in names]
            heights = [np.asarray(plane.loss) for plane in planes]
            # Round levels, and several of them even where the loss is the same everywhere.
            levels = MaxNLocator(14).tick_values(min(h.min() for h in heights), max(h.max() for h in heights))
            low, high = levels[0], levels[-1]
            flats = []
            for column, (name, plane, height) in enumerate(zip(names, planes, heights, strict=True)):
                steps = np.asarray(plane.steps)
                b, a = np.meshgrid(steps, steps)
                place = 2 * kind * len(names) + column + 1
                solid = figure.add_subplot(4, len(names), place, projection="3d")
                solid.plot_surface(a, b, height, cmap="viridis", vmin=low, vmax=high, lw=0, antialiased=True)
                solid.set_zlim(low, high)
                solid.set_title(f"{name}, {_TITLES[kind]}", loc="left")
                solid.tick_params(labelsize=5, pad=-3)
                solid.locator_params(nbins=5)
                solid.set_xlabel("gradient", fontsize=6, labelpad=-10)
                solid.set_ylabel("random", fontsize=6, labelpad=-10)
                solid.set_zlabel("loss", fontsize=6, labelpad=-9)
                flat = figure.add_subplot(4, len(names), place + len(names))
                filled = flat.contourf(a, b, height, levels=levels, cmap="viridis")
                flat.contour(a, b, height, levels=levels, colors="#ffffff", linewidths=0.3)
                flat.plot(0, 0, marker="+", color="#ffffff", ms=6)
                flat.set_xlabel("gradient direction (steps)")
                flats.append(flat)
            flats[0].set_ylabel("random direction (steps)")
            figure.colorbar(filled, ax=flats, label="cross-entropy", shrink=0.9, ticks=levels[::2])
        units = "; ".join(f"{name} {found[name][0].unit:.3g} and {found[name][1].unit:.3g}" for name in names)
        caption(
            figure,
            f"Mean loss over {count} test images on the plane of the loss's gradient and a random direction orthogonal "
            "to it; one scale for the networks of a row. A step of 1 is 1% of the weights' length, or the longest step "
            f"of size eps of an image (Euclidean lengths: {units}); + marks the network "
            f"and the images as they are. {about}",
            55 * len(names),
        )
    return figure
