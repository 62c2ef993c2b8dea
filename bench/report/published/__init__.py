"""Published robust accuracies, typed from the papers named in each line; never mixed with measured ones.

`published.csv` has a line for each number: `source_paper`, `table`, `dataset`, `architecture`, `T`,
`train_strategy` (BPTT, AT, RAT), `method`, `attack`, `eps` (as printed), `steps`, `value_percent` (`-` where the
paper prints none) and `note`: whether the number was read in the paper itself (primary) or quoted by another source
(secondary), and what is odd about it.
"""

from functools import cache
from importlib.resources import files

import pandas as pd

TGO = "TGO ("
"""Begins `source_paper` of the paper behind this benchmark."""


@cache
def _text() -> str:
    return (files(__package__) / "published.csv").read_text()


def published() -> pd.DataFrame:
    """All published numbers, one a row, with `value` as a share in [0, 1], missing where none was printed."""
    import io

    frame = pd.read_csv(io.StringIO(_text()), dtype=str, keep_default_na=False)
    frame["value"] = pd.to_numeric(frame["value_percent"], errors="coerce") / 100
    return frame
