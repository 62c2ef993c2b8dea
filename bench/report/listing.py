"""One line on each registered part."""

import inspect
from typing import Any

from bench.registry import KINDS


def describe(kind: str) -> list[dict[str, Any]]:
    """Name, summary and origin of every part of a kind, in order of registration.

    Args:
        kind: defense, attack, gradient, model or dataset.
    """
    registry = KINDS[kind]
    described = []
    for name in registry.names():
        entry = registry.entry(name)
        part = entry.load()
        shown = f"{name}K" if getattr(part, "takes_steps", False) else name
        described.append(
            {"name": shown, "summary": _summary(kind, part), "builtin": entry.builtin, "origin": entry.origin()}
        )
    return described


def _summary(kind: str, part: Any) -> str:
    written = getattr(part, "summary", None) or (inspect.getdoc(part) or "").split("\n")[0]
    if kind in ("defense", "gradient"):
        parameters = [f"{p.name}={p.default}" for p in inspect.signature(part).parameters.values()]
        return f"{written}" + (f" ({', '.join(parameters)})" if parameters else "")
    if kind == "attack" and part.defaults:
        shown = {key: "51/160 eps" if value is None else value for key, value in part.defaults.items()}
        return f"{written} ({', '.join(f'{key}={value}' for key, value in shown.items())})"
    return str(written)
