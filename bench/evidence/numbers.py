"""Results as values that JSON can hold."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor


class Numbers:
    """Base of the results: frozen dataclasses of plain numbers."""

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values; what is not a finite number becomes None."""
        return plain(asdict(self))  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Spread(Numbers):
    """One quantity over images and draws. NaN where there was nothing to measure."""

    mean: float
    median: float
    low: float
    high: float


def spread(values: Tensor) -> Spread:
    """Mean, median, minimum and maximum of the finite entries of `values` (any shape)."""
    finite = values[torch.isfinite(values)].double()
    if not finite.numel():
        return Spread(math.nan, math.nan, math.nan, math.nan)
    return Spread(float(finite.mean()), float(finite.quantile(0.5)), float(finite.min()), float(finite.max()))


def plain(value: Any) -> Any:
    """Nested dicts, sequences and numbers as JSON values, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
