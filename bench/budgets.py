"""Which attack of a matrix has which budget: those on images or frames, and those on events."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attacks.events.threat import EVENTS
from bench.errors import BenchError
from bench.resolve import edits_events, has_budget

USUAL = "0.05"
"""Edits for each event where nobody says otherwise."""


@dataclass(frozen=True)
class Budgets:
    """The budgets that were asked for.

    An eps of pixels or counts means nothing to an attack that edits events, whose eps is a number of edits for each
    event. So where a matrix has both kinds, each has its own list. `clean` is of neither: beside attacks on events
    alone it is measured as if no budget had been asked for.

    Attributes:
        norm: of the attacks on images or frames, or `events`.
        eps: of the attacks on images or frames; of those on events, where there are no others.
        event_eps: of the attacks on events.
    """

    norm: str
    eps: Sequence[str] = ()
    event_eps: Sequence[str] = ()

    def of(self, attacks: Sequence[str], usual: str) -> Iterator[tuple[str, str, str]]:
        """Each attack with each of its budgets, as (attack, eps, norm): the first budgets first.

        Args:
            attacks: as typed.
            usual: eps of attacks on images or frames where none was asked for.

        Raises:
            BenchError: budgets or a norm that an attack of the matrix, or none, can have.
        """
        edits = {text: edits_events(text) for text in attacks}
        others = [text for text in attacks if not edits[text]]
        bounded = [text for text in others if has_budget(text)]
        idle: list[str] = []
        if len(others) < len(attacks) and not bounded and not (self.eps and self.event_eps):
            # What no eps bounds must not decide whose eps this is.
            idle, others, attacks = others, [], [text for text in attacks if edits[text]]
        if others and self.norm == EVENTS:
            raise BenchError(
                f"attack '{(bounded or others)[0]}' does not edit events, so --norm {EVENTS} is not for it; leave the "
                "norm out: attacks on events have it anyway"
            )
        if others and self.norm != "linf" and not self.eps:
            raise BenchError(f"--norm {self.norm} needs --eps: the datasets' budgets are meant for linf")
        if len(others) == len(attacks):
            if self.event_eps:
                raise BenchError(f"--event-eps has no effect on {', '.join(attacks)}; leave it out")
        elif others and self.eps and not self.event_eps:
            one = next(text for text in attacks if edits[text])
            raise BenchError(
                f"--eps is in units of the frames for '{bounded[0]}' and in edits for each event for '{one}': give the "
                f"latter its own, --event-eps {USUAL}"
            )
        elif not others:
            if self.eps and self.event_eps:
                raise BenchError("give --eps or --event-eps: all of these attacks edit events")
            if self.norm not in ("linf", EVENTS):
                raise BenchError(f"--norm {self.norm} has no effect on {', '.join(attacks)}; leave it out")
        theirs = self.event_eps or (() if others else self.eps) or [USUAL]
        yield from ((text, usual, "linf") for text in idle)
        for eps in self.eps or [usual]:
            yield from ((text, eps, self.norm) for text in others)
        for eps in theirs:
            yield from ((text, eps, EVENTS) for text in attacks if edits[text])
