"""Networks built with other libraries, presented as one of ours: pixels in, logits out, no state left behind."""

from models.foreign.detect import libraries_of
from models.foreign.net import Adapted, adapted

__all__ = ["Adapted", "adapted", "libraries_of"]
