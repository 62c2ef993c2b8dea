"""Matrices with a name: the runs behind the paper's tables and figures, and behind those of its predecessors."""

from typing import Any

from bench.errors import BenchError

_PGD_ROW = ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40")
_CURVE = {"attacks": ("fgsm", "pgd10", "pgd40"), "dataset": "cifar100", "model": "wrn16-4"}
_LINEAGE = {"attacks": _PGD_ROW, "dataset": "cifar100", "model": "vgg11", "T": 8, "decay": 1.0}
_TWO = {"defenses": ("vanilla", "tgo"), "attacks": ("rfgsm",), "dataset": "cifar100", "model": "wrn16-4"}

PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    "table1": (
        {
            "defenses": ("vanilla", "tgo", "at", "tgo+at", "rat", "tgo+rat"),
            "attacks": _PGD_ROW,
            "dataset": "cifar10",
            "model": "wrn16-4",
        },
    ),
    "table2": (
        {
            "defenses": (
                "vanilla", "dlif+mppd", "stog", "tgo", "at", "stog+at", "tgo+at", "rat", "stog+rat", "tgo+rat",
            ),
            "attacks": _PGD_ROW,
            "dataset": "cifar100",
            "model": "vgg11",
        },
        {
            "defenses": (
                "vanilla", "dlif+mppd", "sr", "tgo", "at", "dlif+mppd+at", "sr+at", "tgo+at", "rat", "dlif+mppd+rat",
                "tgo+rat",
            ),
            "attacks": _PGD_ROW,
            "dataset": "cifar100",
            "model": "wrn16-4",
        },
    ),
    "table3": (
        {
            "defenses": ("at", "sr+at", "tgo+at"),
            "attacks": tuple(f"{family}{steps}:eot=3" for family in ("mtpgd", "apgd") for steps in (7, 10, 20, 40)),
            "dataset": "cifar100",
            "model": "wrn16-4",
        },
    ),
    "table4": (
        {
            "defenses": ("vanilla", "mc", "nlif", "tgo", "rat", "mc+rat", "nlif+rat", "tgo+rat"),
            "attacks": ("fgsm", "rfgsm", "pgd40"),
            "dataset": "cifar100",
            "model": "vgg11",
        },
    ),
    "table5": (
        {
            # The paper prints the last two; without the others nobody can say what either adds.
            "defenses": ("vanilla", "tgo", "at", "tgo+at"),
            "attacks": ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd30", "pgd50"),
            "dataset": "cifar10-dvs",
            "model": "wrn16-4",
        },
    ),
    "fig1": (_TWO,),
    "fig3": (
        {**_CURVE, "defenses": ("sr+at", "tgo+at"), "eps": ("2/255", "4/255", "6/255", "8/255")},
        # lam_max = 0.4 is tgo's own on this network, and already there.
        {**_CURVE, "defenses": tuple(f"tgo:lam_max={lam}+at" for lam in (0.2, 0.3, 0.6)), "eps": ("8/255",)},
    ),
    "fig4": (_TWO,),
    "fig5": (_TWO,),
    "lineage": (
        {
            **_LINEAGE,
            # Each trains against what its own paper does: SNN-RAT and FEEL-SNN PGD-2 at 2/255, SR PGD-7 at 8/255,
            # StoG one step of 2/255.
            "defenses": (
                "vanilla", "at", "rat", "sr", "sr+at:eps=8/255,steps=7,alpha=0.01",
                "stog", "stog+at:steps=1,alpha=2/255", "stog+rat",
            ),
            "recipe": {"epochs": 200, "batch_size": 64},
        },
        {
            **_LINEAGE,
            "defenses": ("dlif+mppd", "dlif+mppd+at:eps=4/255,steps=1,alpha=4/255", "dlif+mppd+rat"),
            "decay": 0.99,
            "recipe": {"epochs": 100, "batch_size": 64},
        },
        {
            **_LINEAGE,
            "defenses": ("fe+el", "fe+el+at", "fe+el+rat"),
            "recipe": {"epochs": 300, "batch_size": 256},
        },
    ),
}  # fmt: skip
"""What a matrix does not name is the dataset's; `recipe` are overrides of its training."""

_OF_FRAMES = ("table5",)
"""Recordings of other sensors have other sizes, so that each dataset's own model takes part, not the paper's."""


def preset(name: str, dataset: str | None = None) -> tuple[dict[str, Any], ...]:
    """A named set of matrices, all on one dataset.

    Args:
        name: see `PRESETS`.
        dataset: to run it on instead of the paper's; with frames its own model takes the paper's place.

    Raises:
        BenchError: no such preset.
    """
    if name not in PRESETS:
        raise BenchError(f"unknown preset '{name}'; choose from {', '.join(PRESETS)}")
    wanted = PRESETS[name][0]["dataset"]
    # A dataset may be named with options, as `cifar10-dvs:T=8`.
    other = dataset is not None and dataset.partition(":")[0] != wanted
    left_out = ("model",) if name in _OF_FRAMES and other else ()
    matrices = ({key: value for key, value in matrix.items() if key not in left_out} for matrix in PRESETS[name])
    return tuple({**matrix, "dataset": dataset or wanted} for matrix in matrices)
