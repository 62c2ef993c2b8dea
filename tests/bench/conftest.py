"""A store to write into."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "bench.sqlite")
    yield opened
    opened.close()
