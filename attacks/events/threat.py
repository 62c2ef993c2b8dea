"""What an attacker may do to a recording: how many events are edited, of which kind, how far events move."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, NamedTuple

from attacks.threat import format_eps

EVENTS = "events"
"""What the norm of this threat model is called wherever norms are named."""

MOST = 10
"""The largest eps: so many edits for each event of a recording."""

_KINDS = ("added", "removed", "shifted")
_SHARES = (*_KINDS, "on", "off")
_TIMES = ("max_shift", "min_gap")
RULES = _SHARES + _TIMES
"""What `read_rules` knows."""

_LONGEST = 2**40


class Bounds(NamedTuple):
    """How many events of one recording may be edited, in whole events.

    Attributes:
        edits: in all.
        added, removed, shifted: by kind of edit.
        on, off: by polarity of the event that is added, removed or moved.
    """

    edits: int
    added: int
    removed: int
    shifted: int
    on: int
    off: int


@dataclass(frozen=True)
class EventThreat:
    """What an attacker may do to a recording of n events.

    Each added, removed or moved event is one edit. An event that changes its pixel or its polarity is a removal and an
    addition. Whatever is done, events stay on the sensor and within [0, time of the last original event].

    Attributes:
        eps: share of n that may be edited in all, [0, 10]: floor(eps * n) edits.
        added, removed, shifted: further bounds of the same form by kind of edit; None is eps alone, 0 forbids it.
        on, off: the same by polarity of the event that is added, removed or moved.
        max_shift: microseconds that an event may be moved in time; with 0 none may be moved: that is a removal and an
            addition.
        min_gap: microseconds that an added or moved event keeps from every other event of its pixel, of either
            polarity; with 0 none.
        surrogate: written form of the gradient that the attacker differentiates spikes by; None is the model's own.

    Raises:
        ValueError: a share or a time out of range, or a bound on moves where none may be moved.
    """

    eps: Fraction
    added: Fraction | None = None
    removed: Fraction | None = None
    shifted: Fraction | None = None
    on: Fraction | None = None
    off: Fraction | None = None
    max_shift: int = 0
    min_gap: int = 1
    surrogate: str | None = None

    def __post_init__(self) -> None:
        for name in ("eps", *_SHARES):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= MOST:
                raise ValueError(
                    f"{name} is a share of a recording's events and must lie in [0, {MOST}], got {share}; 0.05 is one "
                    "edit for every 20 events"
                )
        for name in _TIMES:
            if not 0 <= getattr(self, name) <= _LONGEST:
                raise ValueError(f"{name} must be 0 to 2^40 microseconds, got {getattr(self, name)}")
        if self.shifted and not self.max_shift:
            raise ValueError("shifted allows events to be moved but max_shift does not; give max_shift=1000 or so")

    def edits(self, n: int) -> int:
        """How many edits a recording of n events may have in all."""
        return math.floor(self.eps * n)

    def bounds(self, n: int) -> Bounds:
        """How many edits of each kind a recording of n events may have, never more than in all."""
        most = self.edits(n)
        shares = {name: getattr(self, name) for name in _SHARES}
        kinds = {name: most if share is None else min(most, math.floor(share * n)) for name, share in shares.items()}
        return Bounds(most, **kinds | ({} if self.max_shift else {"shifted": 0}))

    def check_kinds(self, kinds: Collection[str]) -> None:
        """Refuse rules under which an attack could do nothing whatever its budget.

        Args:
            kinds: of edit that it makes, of `added`, `removed` and `shifted`.

        Raises:
            ValueError: the rules allow none of them, or there is no such kind.
        """
        if unknown := [kind for kind in kinds if kind not in _KINDS]:
            raise ValueError(f"there is no kind of edit '{unknown[0]}'; choose from {', '.join(_KINDS)}")
        if self.on == 0 and self.off == 0:
            raise ValueError("on=0 and off=0 forbid every edit; leave one of them out")
        mends = {kind: self._mend(kind) for kind in kinds}
        if all(mends.values()):
            made, mend = ", ".join(mends), " or ".join(mends.values())
            raise ValueError(f"the only kinds of edit that it makes are forbidden ({made}); {mend}")

    def _mend(self, kind: str) -> str:
        """What would allow a kind of edit; nothing where it is allowed."""
        mends = [f"leave out {kind}=0"] if getattr(self, kind) == 0 else []
        if kind == "shifted" and not self.max_shift:
            mends.append("give max_shift=5000 or so")
        return " and ".join(mends)

    @property
    def rules(self) -> str:
        """What differs from the defaults, as `read_rules` reads it: `added=1/50,max_shift=5000`, or nothing."""
        named = ((f.name, getattr(self, f.name), f.default) for f in fields(self) if f.name in RULES)
        return ",".join(f"{name}={_shown(value)}" for name, value, default in named if value != default)


def _shown(value: Fraction | int) -> str:
    return format_eps(value) if isinstance(value, Fraction) else str(value)


def read_rules(text: str) -> dict[str, Any]:
    """Read what an attacker may do beside eps: `max_shift=5000,added=0.02`.

    Args:
        text: names of `EventThreat`'s fields with their values; nothing for the defaults.

    Returns:
        keyword arguments of `EventThreat`; shares are exact fractions, times whole microseconds.

    Raises:
        ValueError: an unknown name, one given twice, or a value that is no number.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in RULES or not equals:
            raise ValueError(f"event rule '{part}' must be one of {', '.join(RULES)}, and =, and a number")
        if name in found:
            raise ValueError(f"event rule '{name}' is given twice")
        try:
            found[name] = int(value) if name in _TIMES else Fraction(value)
        except (ValueError, ZeroDivisionError):
            unit = "whole microseconds, as 5000" if name in _TIMES else "a share of the events, as 0.02"
            raise ValueError(f"event rule '{name}' must be {unit}, got '{value}'") from None
    return found
