"""What a self-test says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bench.errors import describe

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one self-test.

    Attributes:
        group: what kind of thing was tested, `attacks`.
        name: which one, `pgd10`.
        check: what was asked of it, `ball`.
        status: `skipped` where the question does not apply or something is not installed.
        detail: the reason of a failure or a skip, else what was measured; may be empty.
    """

    group: str
    name: str
    check: str
    status: Status
    detail: str = ""


class UnsoundError(Exception):
    """A self-test's expectation does not hold; the message says which."""


class NotApplicableError(Exception):
    """A self-test does not apply; the message says why."""


def examine(group: str, name: str, check: str, test: Callable[[], str]) -> Finding:
    """Run one self-test; whatever it raises is its finding.

    Args:
        group, name, check: as in `Finding`.
        test: returns what it measured.
    """
    try:
        return Finding(group, name, check, "ok", test())
    except UnsoundError as error:
        return Finding(group, name, check, "failed", str(error))
    except NotApplicableError as error:
        return Finding(group, name, check, "skipped", str(error))
    except Exception as error:
        # Attacks and gradients may be anyone's code.
        return Finding(group, name, check, "failed", describe(error))
