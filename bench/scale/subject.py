"""The plan that growth is measured on: many networks under many attacks, on images that do not exist."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.plan import Plan, Request, make_plan

NAME = "synthetic"
"""The dataset's: its images are random, so no cell of such a plan has the key of a real one."""

DEFENSES = ("vanilla", "at", "rat", "sr", "mc", "nlif", "tgo", "at+tgo", "mc+at", "rat+nlif")
ATTACKS = (
    *("fgsm", "rfgsm", "pgd1", "pgd2", "pgd3", "pgd5", "pgd7", "pgd10", "pgd20", "pgd40", "pgd100"),
    *(f"pgd{steps}:loss=margin" for steps in (10, 20, 40)),
    *(f"apgd{steps}:loss={loss}" for loss in ("ce", "margin") for steps in (10, 20, 40)),
    *("mtpgd20", "sapgd20", "sapgd100", "square100", "sweep20"),
)
_CLASSES, _TRAIN = 10, 256


@dataclass(frozen=True)
class Size:
    """How large a plan is.

    Attributes:
        networks, attacks: each pair is a cell.
        n: test images.
    """

    networks: int
    attacks: int
    n: int

    @property
    def cells(self) -> int:
        return self.networks * self.attacks


def size_of(cells: int, n: int) -> Size:
    """As many networks as attacks, as far as seeds and budgets come in whole numbers.

    Raises:
        BenchError: too few cells to be a plan of every defense and attack.
    """
    side = math.isqrt(cells)
    seeds, budgets = max(1, round(side / len(DEFENSES))), max(1, round(side / len(ATTACKS)))
    # What rounding loses on one side, the other makes up for.
    seeds = max(1, round(cells / (len(DEFENSES) * len(ATTACKS) * budgets))) if cells else seeds
    if cells < len(DEFENSES) * len(ATTACKS):
        raise BenchError(f"--cells must be at least {len(DEFENSES) * len(ATTACKS)}, got {cells}")
    return Size(seeds * len(DEFENSES), budgets * len(ATTACKS), n)


def write_images(folder: Path, n: int) -> Path:
    """The file of a dataset of n random test images."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part, count in (("train", _TRAIN), ("test", n)):
        arrays[f"x_{part}"] = random.random((count, 1, 8, 8), np.float32)
        arrays[f"y_{part}"] = np.arange(count) % _CLASSES
    path = folder / f"{NAME}.npz"
    np.savez(path, **arrays)
    return path


def plan_of(size: Size, images: Path) -> Plan:
    """The plan, by the way that `bench run` takes."""
    return make_plan(request_of(size, images), images.parent / "checkpoints", images.parent)


def request_of(size: Size, images: Path) -> Request:
    """What a user would have typed for it."""
    return Request(
        defenses=DEFENSES,
        attacks=ATTACKS,
        eps=[f"{number}/1000" for number in range(1, size.attacks // len(ATTACKS) + 1)],
        seeds=range(size.networks // len(DEFENSES)),
        dataset=str(images),
        model="cnn-small",
        recipe={"epochs": 1, "batch_size": 64, "holdout": 0, "train_size": _TRAIN},
        n=size.n,
    )
