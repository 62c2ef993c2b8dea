"""One line on each registered part."""

import inspect
from typing import Any

from bench.parameters import options_of
from bench.registry import KINDS, Entry
from bench.source import Card, read_card


def describe(kind: str) -> list[dict[str, Any]]:
    """Name, summary and origin of every part of a kind, in order of registration.

    Args:
        kind: defense, attack, gradient, model or dataset.
    """
    entries = [KINDS[kind].entry(name) for name in KINDS[kind].names()]
    return [line(kind, entry, card_of(kind, entry)) for entry in entries]


def line(kind: str, entry: Entry, card: Card) -> dict[str, Any]:
    """What a list shows of one part."""
    return {
        "name": _shown(entry.name, card),
        "summary": _summary(kind, card),
        "builtin": entry.builtin,
        "origin": card.origin,
    }


def overview() -> dict[str, list[str]]:
    """The names of every kind, as the lists show them; parts of installed packages are named and not imported."""
    names = {}
    for kind, registry in KINDS.items():
        entries = [registry.entry(name) for name in registry.names()]
        names[f"{kind}s"] = [
            entry.name if entry.packaged else _shown(entry.name, card_of(kind, entry)) for entry in entries
        ]
    return names


def card_of(kind: str, entry: Entry) -> Card:
    """What a list says of a part: read from its source if it is ours, from the loaded object otherwise."""
    read = read_card(entry.target) if entry.builtin and isinstance(entry.target, str) else None
    return read or loaded_card(kind, entry)


def loaded_card(kind: str, entry: Entry) -> Card:
    """As `card_of`, from the object, whose module is imported for it."""
    part = entry.load()
    summary = getattr(part, "summary", None) or (inspect.getdoc(part) or "").split("\n")[0]
    parameters: dict[str, Any] = {}
    if kind in ("defense", "gradient"):
        parameters = {name: parameter.default for name, parameter in inspect.signature(part).parameters.items()}
    elif kind == "attack":
        parameters = dict(part.defaults)
    elif kind == "dataset":
        parameters = {name: parameter.default for name, parameter in options_of(part.load).items()}
    return Card(str(summary), parameters, bool(getattr(part, "takes_steps", False)), entry.origin())


def _shown(name: str, card: Card) -> str:
    return f"{name}K" if card.takes_steps else name


def _summary(kind: str, card: Card) -> str:
    if kind == "model" or not card.parameters:
        return card.summary
    values = dict(card.parameters)
    if kind == "attack":
        values = {name: "51/160 eps" if value is None else value for name, value in values.items()}
    shown = (name if value is inspect.Parameter.empty else f"{name}={value}" for name, value in values.items())
    return f"{card.summary} ({', '.join(shown)})"
