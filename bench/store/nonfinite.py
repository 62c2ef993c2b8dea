"""JSON with numbers that are none, for PostgreSQL, which refuses NaN where SQLite keeps it."""

import json
import math
from typing import Any

_MARK = "not a finite number"


def dumps(value: Any) -> str:
    """JSON text; NaN and the infinities are written so that `loads` gives them back."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_marked(value), allow_nan=False)


def loads(text: str | bytes) -> Any:
    """What `dumps` was given."""
    return json.loads(text, object_hook=lambda found: float(found[_MARK]) if found.keys() == {_MARK} else found)


def _marked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: str(value)}
    if isinstance(value, dict):
        return {name: _marked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(inner) for inner in value]
    return value
