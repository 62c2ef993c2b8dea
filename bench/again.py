"""The commands that measure stored cells again."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from attacks.threat import format_eps
from bench.plan import STOCHASTIC_DRAWS
from bench.store import CellRow
from models.neurons import NeuronSpec

Origins = Mapping[str, Mapping[str, Any]]
"""What the store knows of the run that measured each cell, from `Store.origins`."""


def commands(cells: Sequence[CellRow], recipe: Mapping[str, Any], origins: Origins) -> str:
    """What measures cells of one way to train again; several commands where they differ in draws or attack seeds.

    Args:
        cells: of one defense, model, data set and budget.
        recipe: of their training; empty for weights that were given.
        origins: from the store that the cells are in.
    """
    groups: dict[tuple[int, int], list[CellRow]] = {}
    for row in cells:
        groups.setdefault((row.draws, row.spec["attack_seed"]), []).append(row)
    return " && ".join(command(group, recipe, origins) for group in groups.values())


def command(
    cells: Sequence[CellRow], recipe: Mapping[str, Any], origins: Origins, instead: Mapping[str, str] | None = None
) -> str:
    """What measures cells of one way to train again.

    Args:
        cells: of one defense, model, data set, budget, number of draws and attack seed.
        recipe, origins: see `commands`.
        instead: values of options that are to differ, such as `{"--seed": "0,1,2"}`.
    """
    options = _options(cells, recipe) | dict(instead or {})
    words = [f"{name} {shlex.quote(value)}" if value else name for name, value in options.items()]
    return " ".join(["bench run", *words, *(f"--plugin {shlex.quote(p)}" for p in _plugins(origins, cells[0]))])


def _options(cells: Sequence[CellRow], recipe: Mapping[str, Any]) -> dict[str, str]:
    first, usual = cells[0], NeuronSpec()
    model = first.spec["model"]
    neuron = model["neuron"]
    options = {
        "-d": first.defense.partition(" (")[0], "-a": ",".join(dict.fromkeys(row.attack for row in cells)),
        "--dataset": first.dataset, "--model": first.model, "--eps": format_eps(Fraction(first.eps)),
        "-n": str(first.n),
    }  # fmt: skip
    others = (
        ("--norm", first.norm, "linf"), ("-T", model["T"], 4), ("--decay", neuron["decay"], usual.decay),
        ("--surrogate", neuron["surrogate"], usual.surrogate),
        ("--draws", first.draws, STOCHASTIC_DRAWS if neuron["kind"] != usual.kind else 1),
        ("--attack-seed", first.spec["attack_seed"], 0),
    )  # fmt: skip
    options |= {name: str(value) for name, value, default in others if value != default}
    if first.weights_key.startswith("file:"):
        return options | {"--weights": "FILE"}
    for name in ("epochs", "batch_size", "lr", "train_size"):
        if recipe.get(name):
            options[f"--{name.replace('_', '-')}"] = str(recipe[name])
    if recipe.get("arithmetic") == "bf16":
        options["--train-bf16"] = ""
    if recipe.get("arithmetic") == "reference":
        options["--reference"] = ""
    return options | {"--seed": ",".join(map(str, sorted({row.seed for row in cells})))}


def _plugins(origins: Origins, row: CellRow) -> list[str]:
    """Files that the command which measured a cell loaded parts from."""
    try:
        words = shlex.split(str(origins.get(row.key, {}).get("command") or ""))
    except ValueError:
        return []
    named = [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
    return [*named, *(after for word, after in itertools.pairwise(words) if word == "--plugin")]
