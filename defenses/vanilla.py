"""Training on clean data and nothing else: the paper's BPTT row."""

from defenses.base import Defense


def vanilla() -> Defense:
    """Cross-entropy of the time-mean logits on clean images, by surrogate-gradient BPTT."""
    return Defense("vanilla")
