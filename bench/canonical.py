"""JSON that is the same text for the same value, for hashes."""

import json
from typing import Any


def canonical_json(value: Any) -> str:
    """As `bench.spec.canonical_json`, for what reads a store: to import the specs is to import torch."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
