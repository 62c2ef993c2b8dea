"""Matrices with a name: the rows and columns of the paper's tables that the registry covers."""

from typing import Any

from bench.errors import BenchError

_PGD_ROW = ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40")
PRESETS: dict[str, dict[str, Any]] = {
    "table1": {
        "defenses": ("vanilla", "tgo", "at", "tgo+at", "rat", "tgo+rat"),
        "attacks": _PGD_ROW,
        "dataset": "cifar10",
        "model": "wrn16-4",
    },
    "table2": {
        "defenses": ("vanilla", "tgo", "at", "sr+at", "tgo+at", "rat", "tgo+rat"),
        "attacks": _PGD_ROW,
        "dataset": "cifar100",
        "model": "vgg11",
    },
    "table3": {
        "defenses": ("at", "sr+at", "tgo+at"),
        "attacks": tuple(f"{family}{steps}:eot=3" for family in ("mtpgd", "apgd") for steps in (7, 10, 20, 40)),
        "dataset": "cifar100",
        "model": "wrn16-4",
    },
    "table4": {
        "defenses": ("vanilla", "mc", "nlif", "tgo", "rat", "mc+rat", "nlif+rat", "tgo+rat"),
        "attacks": ("fgsm", "rfgsm", "pgd40"),
        "dataset": "cifar100",
        "model": "vgg11",
    },
}


def preset(name: str) -> dict[str, Any]:
    """A named matrix of the paper.

    Raises:
        BenchError: no such preset.
    """
    if name not in PRESETS:
        raise BenchError(f"unknown preset '{name}'; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
