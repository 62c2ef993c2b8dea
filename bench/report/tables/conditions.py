"""Which conditions of stored cells are not those of the TGO paper."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pandas as pd

from bench.report.tables import layout


@dataclass(frozen=True)
class Paper:
    """What the paper measured for one table or figure.

    Attributes:
        dataset, published_dataset: our name, and the paper's.
        models, architectures: our names, and what the paper calls them.
        images: size of its test set; None where the picture is not a rate over it.
        budgets: of the attacks, as stored cells write them; empty where nothing is attacked.
        T: time steps; None where the paper does not say.
    """

    dataset: str
    published_dataset: str
    models: Collection[str]
    architectures: str
    images: int | None = None
    budgets: Collection[str] = (layout.EPS,)
    T: int | None = layout.T


def departures(used: pd.DataFrame, paper: Paper, seeds: Iterable[int] = ()) -> list[str]:
    """Every condition that is not the paper's, each with the paper's beside it.

    Args:
        used: the cells that are shown, as rows of `cells_frame`.
        paper: what it measured there.
        seeds: the numbers of training seeds that values have; none where no value is a mean.
    """
    trained, size = used["epochs"].dropna().astype(int), used["train_size"].dropna()
    checks: tuple[tuple[str, set[object], set[object], str], ...] = (
        ("dataset", set(used["dataset"]), {paper.dataset}, paper.published_dataset),
        ("model", set(used["model"]), set(paper.models), paper.architectures),
        ("test images", set(used["n"]) if paper.images else set(), {paper.images}, f"{paper.images or 0:,}"),
        ("eps", set(used["eps_text"]) if paper.budgets else set(), {*paper.budgets}, ", ".join(paper.budgets)),
        ("T", set(used["T"]) if paper.T else set(), {paper.T}, str(paper.T)),
        ("decay", set(used["decay"]), {layout.DECAY}, str(layout.DECAY)),
        ("learning rate", set(used["lr"].dropna()), {layout.LR}, str(layout.LR)),
        ("epochs", set(trained), {layout.EPOCHS}, str(layout.EPOCHS)),
        ("training images", {int(n) for n in size if n}, set(), "all"),
        ("training seeds for a value", {*seeds}, {layout.SEEDS}, str(layout.SEEDS)),
    )
    found = []
    for name, values, wanted, printed in checks:
        if values - wanted:
            ordered = sorted(values, key=lambda value: (str(type(value)), value))
            shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in ordered)
            found.append(f"{name} {shown} (paper: {printed})")
    if used["epochs"].isna().any():
        found.append("weights that were given, not trained here")
    return found


def warning(differs: Collection[str]) -> str:
    """The departures as a sentence; empty without any."""
    return f"NOT the paper's conditions: {'; '.join(differs)}." if differs else ""
