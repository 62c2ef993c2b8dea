"""What a check found: the measured value, what it may be at most, and what that means."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

OK, NOTE, SUSPECT, INVALID = "ok", "note", "suspect", "invalid"
VERDICTS = (OK, NOTE, SUSPECT, INVALID)
"""From good to bad."""


@dataclass(frozen=True)
class Finding:
    """One check's answer.

    Attributes:
        check: its name.
        verdict: `ok`; `note`, worth knowing but no reason for doubt; `suspect`, the number may be too high;
            `invalid`, the number is not one.
        value: what was measured, a share in [0, 1] or a difference of two; None where the check does not apply.
        limit: the largest value that is not doubted; None where the check does not apply.
        says: one sentence.
    """

    check: str
    verdict: str
    value: float | None
    limit: float | None
    says: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"unknown verdict '{self.verdict}'")

    def as_json(self) -> dict[str, Any]:
        """For the store and for programs; `of_json` reads it back."""
        return asdict(self)

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> "Finding":
        """Read what `as_json` gave."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def verdict_of(findings: Iterable[Finding]) -> str:
    """`invalid` if any finding is, else `suspect` if any is, else `ok`; a note changes nothing."""
    worst_of = worst(finding.verdict for finding in findings)
    return OK if worst_of == NOTE else worst_of


def worst(verdicts: Iterable[str]) -> str:
    """The worst of several verdicts, `ok` of none."""
    return max(verdicts, key=VERDICTS.index, default=OK)


def limited(check: str, value: float, limit: float, fine: str, wrong: str, verdict: str = SUSPECT) -> Finding:
    """The finding of a check whose value must not exceed a limit.

    Args:
        fine, wrong: what to say where it does not, and where it does.
        verdict: where it does.
    """
    alarm = not value <= limit
    return Finding(check, verdict if alarm else OK, value, limit, wrong if alarm else fine)
