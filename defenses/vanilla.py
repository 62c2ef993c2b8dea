"""Training on clean data and nothing else: the paper's BPTT row."""

from defenses.base import Defense


def vanilla() -> Defense:
    """Cross-entropy of the time-mean logits on clean images, by surrogate-gradient BPTT.

    Source: surrogate-gradient backpropagation through space and time, Wu et al. 2018 (STBP); the TGO paper's row BPTT.
    """
    return Defense("vanilla")
