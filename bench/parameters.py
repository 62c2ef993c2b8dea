"""Parameters as a user writes them behind a name: `tgo:lam_max=0.6`, `pgd40:alpha=0.01`, `n-mnist:T=4,by=time`."""

import inspect
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from attacks.threat import format_eps
from bench.errors import BenchError
from bench.registry import nearest

_CONVERTERS: tuple[tuple[type, Callable[[str], Any]], ...] = (
    (bool, lambda text: {"true": True, "false": False}[text.lower()]),
    (int, int),
    (float, lambda text: float(Fraction(text))),
    (Fraction, Fraction),
    (str, str),
)


def split_parameters(text: str) -> tuple[str, dict[str, str]]:
    """A name and what is written behind it: `name:key=value,key=value`.

    Raises:
        BenchError: a parameter without a value, or given twice.
    """
    name, _, rest = text.strip().partition(":")
    given: dict[str, str] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise BenchError(f"'{text}': write parameters as name:key=value,key=value; '{item}' has no '='")
        key = key.strip()
        if key in given:
            raise BenchError(f"'{text}': {key} is given twice; leave one of them out")
        given[key] = value.strip()
    return name.strip(), given


def matched(owner: str, given: Mapping[str, str], known: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Each parameter given with its text and what is known of it.

    Args:
        owner: who has the parameters, for messages: `attack 'pgd'`.
        given: texts by name.
        known: anything by name, for example default values.

    Raises:
        BenchError: an unknown name; the message lists those there are.
    """
    for key in given:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BenchError(f"{owner} has no parameter '{key}'{nearest(key, list(known))}; {has}")
    return [(key, value, known[key]) for key, value in given.items()]


def converted(owner: str, key: str, text: str, annotation: Any, default: Any) -> Any:
    """Read `text` as the parameter's type: from its annotation, or from its default value.

    Raises:
        BenchError: it cannot be read as that.
    """
    written = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "") or str(annotation)
    written = str(annotation) if "|" in str(annotation) else written
    for kind, convert in _CONVERTERS:
        if re.search(rf"\b{kind.__name__}\b", written) or (type(default) is kind and not written.strip("_")):
            try:
                return convert(text)
            except (ValueError, KeyError, ZeroDivisionError, OverflowError):
                expected = {bool: "true or false", int: "an integer"}.get(kind, "a number")
                raise BenchError(f"{owner}: {key}={text} is not {expected}") from None
    return text


def options_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """What a user may set of a function whose other arguments are the harness's: its keyword-only parameters."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def shown_value(value: Any) -> str:
    """A value as a user would write it."""
    if isinstance(value, Fraction):
        return format_eps(value) if abs(value) < 1e300 else str(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
