"""How to measure an entry again."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from attacks.threat import format_eps
from bench.plan import STOCHASTIC_DRAWS
from bench.store import CellRow
from models.neurons import NeuronSpec


def command_of(cells: Sequence[CellRow], recipe: Mapping[str, Any], origins: Mapping[str, Mapping[str, Any]]) -> str:
    """What measures an entry again; several commands where its cells differ in draws or in the attacks' seed."""
    ways: dict[tuple[int, int], list[CellRow]] = {}
    for row in cells:
        ways.setdefault((row.draws, row.spec["attack_seed"]), []).append(row)
    return " && ".join(_run(group, recipe, origins) for group in ways.values())


def _run(cells: Sequence[CellRow], recipe: Mapping[str, Any], origins: Mapping[str, Mapping[str, Any]]) -> str:
    first = cells[0]
    neuron = first.spec["model"]["neuron"]
    attacks = dict.fromkeys(row.attack for row in cells)
    parts = [
        "bench run", f"-d {shlex.quote(first.defense.partition(' (')[0])}", f"-a {shlex.quote(','.join(attacks))}",
        f"--dataset {shlex.quote(first.dataset)}", f"--model {shlex.quote(first.model)}",
        f"--eps {format_eps(Fraction(first.eps))}", f"-n {first.n}",
    ]  # fmt: skip
    usual = NeuronSpec()
    options = (
        ("--norm", first.norm, "linf"), ("-T", first.spec["model"]["T"], 4), ("--decay", neuron["decay"], usual.decay),
        ("--surrogate", neuron["surrogate"], usual.surrogate),
        ("--draws", first.draws, STOCHASTIC_DRAWS if neuron["kind"] != usual.kind else 1),
        ("--attack-seed", first.spec["attack_seed"], 0),
    )  # fmt: skip
    parts += [f"{name} {shlex.quote(str(value))}" for name, value, default in options if value != default]
    parts += [f"--plugin {shlex.quote(name)}" for name in _plugins(origins.get(first.key, {}))]
    if first.weights_key.startswith("file:"):
        return " ".join([*parts, "--weights FILE"])
    for name in ("epochs", "batch_size", "lr", "train_size"):
        if recipe.get(name):
            parts.append(f"--{name.replace('_', '-')} {recipe[name]}")
    return " ".join([*parts, f"--seed {','.join(map(str, sorted({row.seed for row in cells})))}"])


def _plugins(origin: Mapping[str, Any]) -> list[str]:
    """Files that the command which measured a cell loaded parts from."""
    try:
        words = shlex.split(str(origin.get("command") or ""))
    except ValueError:
        return []
    named = [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
    return [*named, *(after for word, after in itertools.pairwise(words) if word == "--plugin")]
