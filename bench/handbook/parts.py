"""A page for every defense, attack and gradient that ships, from the registry, its docstring and its formula."""

import inspect
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from attacks.base import Attack
from bench.handbook.cost import cost_of
from bench.handbook.docstring import Docstring, read_docstring
from bench.handbook.formulas import formula_of
from bench.noise import draws_noise
from bench.parameters import shown_value
from bench.registry import KINDS, Entry
from defenses.base import Defense, Part, Setting
from defenses.search import Choice, Range, space_of
from models.neurons import NeuronSpec

SHOWN = ("defense", "attack", "gradient")
_SETTING = Setting("cnn-small", Fraction(2, 255))
_INTRODUCTIONS = {
    "defense": "A defense says how a network is trained. Sums of them (`tgo+at`) are defenses too, unless they "
    "contradict themselves: two parts that fill one slot. What a row costs is a training image's passes, of which a "
    "vanilla image takes one forward and backward; `bench plan` reckons with it.",
    "attack": "An attack proposes inputs; clipping is checked, and scoring done, by the harness. `K` is the number of "
    "steps: `pgd40`. Passes are for one image, as `bench plan` reckons with; many attacks leave images alone once they "
    "are broken. How attacks are written, and what makes any of them stronger: [attacks](../../attacks.md), "
    "[attacks on events](../../event-attacks.md).",
    "gradient": "A spike is a step, so how it is differentiated is the attacker's choice: `pgd40@rga`. Which is worth "
    "trying: [attacks](../../attacks.md#gradients).",
}


def part_pages(docs: Path) -> dict[str, str]:
    """All pages, as Markdown by their path below the site's root; the first of a kind is its list.

    Args:
        docs: the folder of the documentation, for the formulas.

    Raises:
        BenchError: a part without a formula.
    """
    pages: dict[str, str] = {}
    for kind in SHOWN:
        registry = KINDS[kind]
        entries = [entry for entry in map(registry.entry, registry.names()) if entry.builtin]
        pages[f"parts/{kind}s/index.md"] = _list(kind, entries)
        for entry in entries:
            pages[f"parts/{kind}s/{entry.name}.md"] = _PAGES[kind](entry, formula_of(docs, kind, entry.name))
    return pages


def documented(kind: str, entry: Entry) -> Docstring:
    """The docstring of what a name stands for: of an attack its function's."""
    part = entry.load()
    return read_docstring(inspect.getdoc(part.run if kind == "attack" else part) or "")


def _list(kind: str, entries: list[Entry]) -> str:
    head = {
        "defense": ("defense", "what it does", "passes for a training image", "parts"),
        "attack": ("attack", "what it does", "forward", "backward"),
        "gradient": ("gradient", "how spikes are differentiated"),
    }[kind]
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        part = entry.load()
        said = _one_line(documented(kind, entry).summary)
        link = f"[`{_written(kind, entry)}`]({entry.name}.md)"
        if kind == "defense":
            built = part()
            rows.append((link, said, _passes(built), ", ".join(f"`{each.name}`" for each in built.parts) or "none"))
        elif kind == "attack":
            rows.append((link, part.summary, *cost_of(part)))
        else:
            rows.append((link, said))
    return f"# {kind.capitalize()}s\n\n{_INTRODUCTIONS[kind]}\n\n{_table(head, rows)}"


def _defense(entry: Entry, formula: str) -> str:
    build = entry.load()
    defense: Defense = build()
    said = documented("defense", entry)
    space = space_of(build)
    defaults = {name: parameter.default for name, parameter in inspect.signature(build).parameters.items()}
    rows = [
        (f"`{name}`", _value(default), _range(space.get(name)), _one_line(said.parameters.get(name, "")))
        for name, default in defaults.items()
    ]
    facts = [
        ("written", f"`-d {entry.name}`"),
        ("passes for a training image", f"{_passes(defense)} (vanilla: 1)"),
        (
            "network",
            "noisy: scored over several draws" if _noisy(defense) else "deterministic, unless summed with noise",
        ),
        ("code", f"`defenses/{_file(build)}`"),
    ]
    parts = "\n\n".join(_part(part) for part in defense.parts) or "None: the training recipe as it is."
    return _page(
        entry.name,
        said,
        facts,
        formula,
        rows and _table(("parameter", "default", "tuned over", "meaning"), rows),
        f"## Parts\n\n{parts}\n",
    )


def _part(part: Part) -> str:
    about = [f"version {part.version}"]
    if part.slot:
        about.append(f"fills the slot `{part.slot}`, so it excludes every other part that does")
    if part.observes_membrane:
        about.append("sees the membrane potentials")
    if part.needs_input_gradient:
        about.append("takes the gradient in the input")
    if part.weight_decay is not None:
        about.append(f"sets weight decay to {part.weight_decay:g}")
    if extra := part.settled(_SETTING).extra_passes():
        about.append(f"{extra:g} passes more")
    said = read_docstring(inspect.getdoc(type(part)) or "")
    return f"### `{part.name}`\n\n{said.summary}\n\n{said.body}\n\n*{'; '.join(about)}.*".replace("\n\n\n\n", "\n\n")


def _attack(entry: Entry, formula: str) -> str:
    attack: Attack = entry.load()
    said = documented("attack", entry)
    forwards, backwards = cost_of(attack)
    rows = [
        (f"`{name}`", _value(default, attack), _one_line(said.parameters.get(name, "")))
        for name, default in attack.defaults.items()
    ]
    limits = [
        text
        for holds, text in (
            (attack.deterministic_only, "networks without noise only"),
            (attack.images_only, "images only, no frames"),
            (attack.least_classes > 2, f"at least {attack.least_classes} classes"),
            (attack.own_gradients, "brings gradients of its own, so `@gradient` makes no sense"),
            (attack.own_batches, "calls the network with batches of its own"),
            (attack.pool, "takes events from training recordings"),
        )
        if holds
    ]
    facts = [
        ("written", f"`-a {_written('attack', entry)}`" + (", with a number for K" if attack.takes_steps else "")),
        ("threat models", ", ".join(f"`{norm}`" for norm in attack.norms)),
        ("forward passes", forwards),
        ("backward passes", backwards),
        ("draws a gradient, of noisy networks", str(attack.eot)),
        ("limits", "; ".join(limits) or "none"),
        ("version", str(attack.version) + (f", {attack.backend()}" if attack.backend else "")),
        ("code", f"`attacks/{_file(attack.run)}`"),
    ]
    if attack.shares_trajectory:
        facts.insert(4, ("other step counts", "read off the same run"))
    return _page(entry.name, said, facts, formula, rows and _table(("parameter", "default", "meaning"), rows))


def _gradient(entry: Entry, formula: str) -> str:
    cls = entry.load()
    said = documented("gradient", entry)
    attributes = read_docstring((inspect.getdoc(cls) or "").replace("Attributes:", "Args:")).parameters
    rows = [
        (f"`{name}`", _value(parameter.default), _one_line(attributes.get(name, "")))
        for name, parameter in inspect.signature(cls).parameters.items()
    ]
    facts = [("written", f"`-a pgd40@{entry.name}`"), ("code", f"`{cls.__module__.replace('.', '/')}.py`")]
    return _page(entry.name, said, facts, formula, rows and _table(("parameter", "default", "meaning"), rows))


_PAGES = {"defense": _defense, "attack": _attack, "gradient": _gradient}


def _page(
    name: str, said: Docstring, facts: list[tuple[str, str]], formula: str, parameters: str | list[Any], rest: str = ""
) -> str:
    sections = [
        f"# {name}\n\n{said.summary}\n",
        _table(("", ""), facts),
        f"## Formula\n\n{formula}\n",
        f"## Parameters\n\n{parameters or 'None.'}\n",
        f"## What it does\n\n{said.body}\n" if said.body else "",
        f"## Source\n\n{said.source}\n" if said.source else "",
        f"## What is refused\n\n{said.raises}\n" if said.raises else "",
        rest,
    ]
    return "\n".join(filter(None, sections))


def _written(kind: str, entry: Entry) -> str:
    return f"{entry.name}K" if kind == "attack" and entry.load().takes_steps else entry.name


def _passes(defense: Defense) -> str:
    return f"{1 + sum(part.settled(_SETTING).extra_passes() for part in defense.parts):g}"


def _noisy(defense: Defense) -> bool:
    settled = defense.settled(_SETTING)
    return draws_noise(settled.neuron(NeuronSpec()), settled.encoder)


def _file(code: Any) -> str:
    return inspect.getmodule(code).__name__.partition(".")[2].replace(".", "/") + ".py"  # type: ignore[union-attr]


def _value(value: Any, attack: Attack | None = None) -> str:
    if value is inspect.Parameter.empty:
        return "must be given"
    if value is None:
        return f"eps · {attack.alpha_per_eps}" if attack else "open"
    if value == "":
        return "none"
    return f"`{shown_value(value)}`"


def _range(space: Range | Choice | None) -> str:
    if space is None:
        return "not tuned"
    if isinstance(space, Choice):
        return ", ".join(space.values)
    return f"{space.low:g} to {space.high:g}{', by ratio' if space.log else ''}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def listed(pages: Mapping[str, str], kind: str) -> list[str]:
    """The paths of a kind's pages, in the registry's order, its list first."""
    return [path for path in pages if path.startswith(f"parts/{kind}s/")]
