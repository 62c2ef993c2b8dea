"""What a filled table shows, and every condition that is not the paper's."""

from bench.report.tables.conditions import Paper, departures, warning
from bench.report.tables.fill import Filled

_ITERATES = {"last": "last iterate", "any": "any iterate: under the worse of the last and the strongest one visited"}


def title(filled: Filled) -> str:
    """What the table shows and of which data: the paper's only where its dataset was measured."""
    table = filled.table
    if filled.dataset == table.dataset:
        return f"{table.subject} on {table.published_dataset} (TGO, {table.source})"
    return f"{table.subject} on {filled.dataset}, arranged as the TGO paper's {table.source}"


def caption(filled: Filled) -> str:
    """Sentences that make a small run impossible to mistake for the paper's."""
    counts = seed_counts(filled)
    parts = [f"{title(filled)}. Percent, {_intervals(counts)}; {_ITERATES[filled.iterate]}."]
    parts += filter(None, [warning(differences(filled))])
    draws = sorted({value.draws for value in filled.places if value.draws > 1})
    if draws:
        shown = " or ".join(map(str, draws))
        parts.append(f"Noisy networks: expectation over {shown} scoring draws; the paper does not say how it scores.")
    parts += filter(None, [filled.table.unstated])
    if filled.left_out:
        parts.append(f"{filled.left_out} invalid or otherwise measured cells are left out.")
    return " ".join(parts)


def seed_counts(filled: Filled) -> list[int]:
    """The numbers of training seeds that values have, each once."""
    return sorted({len(value.seeds) for value in filled.places if value.seeds})


def _intervals(counts: list[int]) -> str:
    over = "training seeds with 95% t-interval, which does not cover the choice of images"
    if counts == [1]:
        return "95% Wilson interval"
    if len(counts) == 1:
        return f"mean over {counts[0]} {over}"
    return f"95% Wilson interval; ×k: mean over k {over}"


def differences(filled: Filled) -> list[str]:
    """Every condition under which the shown cells were measured that is not the paper's."""
    table = filled.table
    models = [block.model for block in table.blocks]
    architectures = " and ".join(block.architecture for block in table.blocks)
    paper = Paper(table.dataset, table.published_dataset, models, architectures, table.images, T=table.time_steps)
    return departures(filled.used, paper, seed_counts(filled))
