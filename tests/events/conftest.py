"""SpikingJelly as a second opinion on files and frames."""

import sys
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def spikingjelly() -> Any:
    """Its module of event data; the tests that ask for it skip where it is not installed."""
    pytest.importorskip("spikingjelly")
    # Its data sets of speech, which are imported along, need torchaudio; those of events do not.
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
    return pytest.importorskip("spikingjelly.datasets")
