"""The names of the gradients, and how they are written."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from attacks.gradients.assg import ASSG
from attacks.gradients.base import SpikeGradient
from attacks.gradients.conversion import Conversion
from attacks.gradients.hart import HART
from attacks.gradients.noiseless import Noiseless
from attacks.gradients.pdsg import PDSG
from attacks.gradients.rates import BPTR, RGA
from models.surrogates import SURROGATES, Surrogate

GRADIENTS: dict[str, Callable[..., Surrogate | SpikeGradient]] = {
    **SURROGATES,
    **{cls.name: cls for cls in (BPTR, RGA, HART, ASSG, PDSG, Conversion, Noiseless)},
}


def parse_gradient(
    text: str, known: Mapping[str, Callable[..., Surrogate | SpikeGradient]] = GRADIENTS
) -> Surrogate | SpikeGradient:
    """Read a gradient from its written form, `NAME` or `NAME:KEY=VALUE,KEY=VALUE`.

    Args:
        text: for example `rga`, `arctan:alpha=4`, `assg:tolerance=0.9,shape=sigmoid`.
        known: classes by name.

    Raises:
        ValueError: unknown name or parameter, or a value out of range.
    """
    name = text.partition(":")[0].strip()
    if name not in known:
        raise ValueError(f"unknown gradient '{name}'; choose from {', '.join(known)}")
    return read_gradient(text, known[name])


def read_gradient(text: str, cls: Callable[..., Surrogate | SpikeGradient]) -> Surrogate | SpikeGradient:
    """As `parse_gradient`, of a class that is known already."""
    name, _, rest = (part.strip() for part in text.partition(":"))
    parameters = inspect.signature(cls).parameters
    given: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in parameters or not equals:
            has = ", ".join(f"{p}=" for p in parameters) or "none"
            raise ValueError(f"gradient '{name}' has no parameter '{key}'; it has {has}")
        if key in given:
            raise ValueError(f"gradient '{name}': {key} is given twice")
        given[key] = _read(name, key, value, parameters[key].default, hasattr(cls, "__post_init__"))
    try:
        return cls(**given)
    except TypeError as error:
        raise ValueError(f"gradient '{name}': {error}") from error


def check_gradient_class(cls: type, name: str) -> None:
    """Whether a class can be written down and read back as the gradient `name`.

    Raises:
        ValueError: it is no dataclass, has another name, has a parameter without a default, or lacks what a
            `Surrogate` or a `SpikeGradient` needs.
    """
    if not is_dataclass(cls):
        raise ValueError(f"gradient '{name}' must be a frozen dataclass")
    if getattr(cls, "name", None) != name:
        raise ValueError(f"gradient '{name}': its class calls itself '{getattr(cls, 'name', None)}'; give it that name")
    unset = [f.name for f in fields(cls) if f.default is MISSING]
    if unset:
        raise ValueError(f"gradient '{name}': parameter '{unset[0]}' needs a default value")
    needs = ("grad",) if hasattr(cls, "grad") else ("for_layer", "faithful", "version")
    missing = [attribute for attribute in needs if not hasattr(cls, attribute)]
    if missing:
        raise ValueError(f"gradient '{name}' lacks '{missing[0]}'")


def _read(name: str, key: str, text: str, default: Any, checked: bool) -> Any:
    """Read a value as the parameter's default is; classes that check their own values are not second-guessed."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"gradient '{name}': {key}={text} is not true or false")
        return text.lower() == "true"
    kind = int if isinstance(default, int) else float
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"gradient '{name}': {key}={text} is not a number") from None
    if not math.isfinite(value) or (not checked and default > 0 and value <= 0):
        raise ValueError(f"gradient '{name}': {key} must be positive and finite, got {text}")
    return value


def format_gradient(gradient: Surrogate | SpikeGradient, *, short: bool = False) -> str:
    """The written form that `parse_gradient` reads back.

    Args:
        gradient: any of them.
        short: leave out parameters at their defaults, instead of stating every one.
    """
    plain = {field.name: field.default for field in fields(gradient)} if short else {}  # type: ignore[arg-type]
    values = {key: value for key, value in asdict(gradient).items() if not short or value != plain[key]}  # type: ignore[call-overload]
    written = ",".join(f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in values.items())
    return ":".join(filter(None, [gradient.name, written]))
