"""The commands that measure stored cells again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from attacks.threat import format_eps
from bench.names import split_held_out
from bench.plan import STEPS, STOCHASTIC_DRAWS
from bench.registry import DATASETS
from bench.spec import Recipe
from bench.store import CellRow
from models.neurons import NeuronSpec

_USUAL_DECAY = Recipe(epochs=1, batch_size=2).weight_decay
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
    options = _options(cells, recipe, origins) | dict(instead or {})
    words = [f"{name} {shlex.quote(value)}" if value else name for name, value in options.items()]
    plugins = dict.fromkeys(typed(origins.get(cells[0].key, {}), "--plugin"))
    return " ".join(["bench run", *words, *(f"--plugin {shlex.quote(plugin)}" for plugin in plugins)])


def spellings(
    row: CellRow, recipe: Mapping[str, Any], origin: Mapping[str, Any], given: str, results: str
) -> Iterator[str]:
    """Commands that measure one cell in an empty store, with everything that decides its outcome; the shortest first.

    A name may mean something else today than when the cell was stored. So the attack is then written out in full, and
    last the options of the neuron are those that were typed, since a defense may have made others of them.

    Args:
        row: the cell.
        recipe: of its training; empty for weights that were given.
        origin: provenance of the cell, with the number of threads that the command is to have.
        given: path of weights that were given; unused where they were trained.
        results: folder to measure in.
    """
    device = (typed(origin, "--device") or ["auto"])[-1]
    if device == "auto":
        device = "cpu" if str(origin.get("device", "cpu")).startswith("cpu") else "cuda"
    whole = {"--draws": str(row.draws)}
    if row.weights_key.startswith("file:"):
        whole["--weights"] = given
    where = {"--data-dir": folders[-1]} if (folders := typed(origin, "--data-dir")) else {}
    where |= {"--device": device}
    where |= {"--threads": str(origin["threads"])} if origin.get("threads") else {}
    where |= {"--results": results}
    seen = set[str]()
    for attack in (_attack(row, recipe), attack_in_full(row.spec["attack"])):
        for neuron in ({}, *_neurons_as_typed(origin)):
            # Where to compute comes last, and so does what is only said to be sure.
            one = command([row], recipe, {row.key: origin}, {"-a": attack, **whole, **neuron, **where})
            if one not in seen:
                seen.add(one)
                yield one


def typed(origin: Mapping[str, Any], option: str) -> list[str]:
    """The values that the command of a run, or its matrix file, gave an option, in order.

    Args:
        origin: provenance of the run.
        option: its long form, such as `--plugin`.
    """
    return [value for text in _asked(origin) for value in _given(text, option)]


def _asked(origin: Mapping[str, Any]) -> list[str]:
    """What was typed: the command, or each part of a matrix file with what the command changed of it."""
    return [str(text) for text in origin.get("asked") or [origin.get("command") or ""]]


def _given(command: str, option: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    found = []
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option and (equals or number + 1 < len(words)):
            found.append(value if equals else words[number + 1])
    return found


def attack_in_full(spec: Mapping[str, Any]) -> str:
    """An attack as it is typed, with every parameter that it was called with.

    Args:
        spec: identity of its `AttackSpec`, as it is stored.
    """
    params = {str(key): str(value).lower() if isinstance(value, bool) else str(value) for key, value in spec["params"]}
    # Another library's attack is called by the name of its class.
    head = f"{spec['family']}:{params.pop('name')}" if "name" in params else spec["family"]
    params |= {"eot": str(spec["eot"])} if spec.get("eot", 1) > 1 else {}
    params |= {"restarts": str(spec["restarts"])} if spec["restarts"] > 1 else {}
    params |= {"arithmetic": str(spec.get("arithmetic", "fast"))}
    written = ",".join([*(f"{key}={value}" for key, value in params.items()), *filter(None, [spec.get("rules")])])
    gradient = f"@{spec['surrogate']}" if spec["surrogate"] else ""
    return f"{head}{spec['steps'] or ''}:{written}{gradient}"


def _options(cells: Sequence[CellRow], recipe: Mapping[str, Any], origins: Origins) -> dict[str, str]:
    first, usual = cells[0], NeuronSpec()
    model = first.spec["model"]
    neuron = model["neuron"]
    options = {
        "-d": first.defense.partition(" (")[0], "-a": ",".join(dict.fromkeys(_attack(row, recipe) for row in cells)),
        "--dataset": _dataset(first, origins.get(first.key, {})), "--model": first.model,
        "--eps": format_eps(Fraction(first.eps)), "-n": str(first.n),
    }  # fmt: skip
    # Frames bring their own number of steps.
    steps = model["T"] if model.get("frames") else STEPS
    others = (
        ("--norm", first.norm, "linf"), ("-T", model["T"], steps), ("--decay", neuron["decay"], usual.decay),
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
    if recipe.get("weight_decay", _USUAL_DECAY) != _USUAL_DECAY:
        options["--weight-decay"] = str(recipe["weight_decay"])
    if recipe.get("arithmetic") == "bf16":
        options["--train-bf16"] = ""
    if recipe.get("arithmetic") == "reference":
        options["--reference"] = ""
    return options | {"--seed": ",".join(map(str, sorted({row.seed for row in cells})))}


def _dataset(row: CellRow, origin: Mapping[str, Any]) -> str:
    """What to call a cell's data set: a file of the user's goes by its path, which only the command has."""
    head, inner = split_held_out(row.dataset)
    if head:
        return head + _dataset(replace(row, dataset=inner), origin)
    named = [split_held_out(name)[1] for name in typed(origin, "--dataset")[-1:]]
    if named and (Path(named[0]).stem == row.dataset or row.dataset not in DATASETS):
        return named[0]
    return row.dataset if row.dataset in DATASETS else f"{row.dataset}.npz"


def _attack(row: CellRow, recipe: Mapping[str, Any]) -> str:
    """A cell's attack as it is typed. --reference, which a training may need, would slow the attack down as well."""
    if recipe.get("arithmetic") != "reference" or row.spec["attack"].get("arithmetic", "fast") != "fast":
        return row.attack
    name, at, gradient = row.attack.partition("@")
    return f"{name}{',' if '=' in name else ':'}arithmetic=fast{at}{gradient}"


def _neurons_as_typed(origin: Mapping[str, Any]) -> list[dict[str, str]]:
    usual = {"--decay": str(NeuronSpec().decay), "--surrogate": NeuronSpec().surrogate}
    return [{name: (_given(text, name) or [value])[-1] for name, value in usual.items()} for text in _asked(origin)]
