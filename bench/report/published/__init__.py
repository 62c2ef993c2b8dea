"""Published robust accuracies, typed from the papers named in each line; never mixed with measured ones.

`published.csv` has a line for each number:

- `source_paper`, `table`: where it is printed;
- `dataset`, `architecture`, `T`, `train_strategy` (BPTT, AT, RAT), `method`: of the network, as the source names them;
- `attack`, `eps` (as printed), `steps`: of the attack; `Clean` for none;
- `value_percent`: accuracy under attack, or the attack's success rate where `attack` or `note` says ASR; `-` where the
  paper prints none;
- `note`: whether the number was read in the paper itself (primary) or quoted by another source (secondary), and what is
  odd about it.
"""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

import pandas as pd

TGO = "TGO (Wang et al., ICLR 2026, arXiv 2602.20548)"
"""`source_paper` of the paper behind this benchmark."""

_KEYS = ["table", "architecture", "train_strategy", "method", "attack", "steps"]
_OF_EVERY_VALUE = ("primary", "printed in the paper", "printed as missing", "printed delta")


class Printed(NamedTuple):
    """A number of the TGO paper: a share in [0, 1], in percent as printed, and what is odd about it."""

    value: float
    text: str
    remarks: tuple[str, ...] = ()


def published() -> pd.DataFrame:
    """All published numbers, one a row, with `value` as a share in [0, 1], missing where none was printed."""
    return _frame().copy()


def printed(table: str, architecture: str, strategy: str, method: str, attack: str, steps: str) -> Printed | None:
    """One number of the TGO paper, named as `published.csv` names it; None where the paper prints none."""
    return _tgo().get((table, architecture, strategy, method, attack, steps))


@cache
def _frame() -> pd.DataFrame:
    with (files(__package__) / "published.csv").open("rb") as file:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    frame["value"] = (pd.to_numeric(frame["value_percent"], errors="coerce") / 100).round(6)
    return frame


@cache
def _tgo() -> dict[tuple[str, ...], Printed]:
    frame = _frame()
    ours = frame[(frame["source_paper"] == TGO) & frame["value"].notna()]
    return {
        tuple(map(str, key)): Printed(value, text, _remarks(note))
        for key, value, text, note in zip(
            ours[_KEYS].itertuples(index=False, name=None),
            ours["value"],
            ours["value_percent"],
            ours["note"],
            strict=True,
        )
    }


def _remarks(note: str) -> tuple[str, ...]:
    parts = (part.strip() for part in note.split(";"))
    return tuple(part for part in parts if part and not part.startswith(_OF_EVERY_VALUE))
