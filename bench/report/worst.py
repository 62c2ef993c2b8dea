"""The worst case over attacks, as tables for people and for programs."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from attacks.threat import format_eps
from bench.names import short_names
from bench.report.text import emit, make_console, make_table, percent
from bench.tuning.notes import tuned_paragraph
from bench.worst import Network, Step


def print_worst(found: Sequence[tuple[Network, Sequence[Step]]], iterate: str) -> None:
    """One table for each network: attacks in the order in which they lower robust accuracy fastest per pass."""
    console = make_console()
    names = short_names(((network.dataset, network.model), network.defense) for network, _ in found)
    for network, steps in found:
        name = names[(network.dataset, network.model), network.defense]
        table = make_table(
            f"{network.dataset} / {network.model}, {name}, seed {network.seed}, {network.norm} "
            f"eps {format_eps(Fraction(network.eps))}, n {network.n}"
        )
        table.add_column("attack", overflow="fold")
        for name in ("alone", "worst case so far", "passes so far"):
            table.add_column(name, justify="right", no_wrap=True)
        for step in steps:
            table.add_row(step.attack, percent(step.alone), percent(step.together), f"{step.passes:,}")
        if not steps:
            table.add_row("no attack breaks an image", "", "", "")
        emit(console, table)
    console.print(
        f"Robust accuracy in percent, 95% Wilson interval, {iterate} iterate: per image, the worst over the attacks "
        "so far. Passes: forward and backward, per image, as if every image met every attack. Attacks that break no "
        "further image of any network shown are left out."
    )
    note = tuned_paragraph(((network.dataset, network.model), network.defense, "") for network, _ in found)
    if note:
        console.print(note)


def worst_json(found: Sequence[tuple[Network, Sequence[Step]]]) -> list[dict[str, Any]]:
    """The same for programs; rates are shares in [0, 1]."""
    return [
        {
            **{k: getattr(network, k) for k in ("dataset", "model", "defense", "seed", "norm", "eps", "n")},
            "steps": [
                {
                    "attack": step.attack,
                    "alone": step.alone.value,
                    "together": {"value": step.together.value, "low": step.together.low, "high": step.together.high},
                    "passes": step.passes,
                }
                for step in steps
            ],
        }
        for network, steps in found
    ]
