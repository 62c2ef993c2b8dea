"""The one door through which every dataset comes in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from bench.data.dataset import Dataset, DatasetSource
from bench.data.held_out import held_out, numbers_of
from bench.data.npz import load_npz
from bench.names import split_held_out
from bench.parameters import converted, matched, options_of, shown_value, split_parameters
from bench.registry import DATASETS


def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Load a dataset by registered name, or a user's own by the path of its `.npz` file.

    The keyword-only arguments of a registered dataset's `load` are its options. The dataset is called by those that are
    not at their default, in the order of its `load`, however they were written.

    Args:
        name: for example `digits`, `cifar10`, `n-mnist:T=4,by=time`, `my/data.npz`; or any of them behind `held-out:`,
            `held-out:200:` or `held-out:200-of-1000:`, which is the view of it that `held_out` makes.
        data_dir: where downloaded datasets are kept.

    Raises:
        BenchError: unknown name or option, missing or damaged file, or tensors that break the contract of `Dataset`.
    """
    head, inner = split_held_out(name)
    if head:
        return held_out(load_dataset(inner, data_dir), *numbers_of(head))
    if name.endswith(".npz"):
        return load_npz(Path(name))
    head, given = split_parameters(name)
    source: DatasetSource = DATASETS.get(head)
    owner = f"dataset '{head}'"
    known = options_of(source.load)
    options = {
        key: converted(owner, key, text, parameter.annotation, parameter.default)
        for key, text, parameter in matched(owner, given, known)
    }
    loaded = cast("Callable[..., Dataset]", source.load)(data_dir, **options)
    changed = [
        f"{key}={shown_value(options[key])}"
        for key, parameter in known.items()
        if key in options and options[key] != parameter.default
    ]
    return replace(loaded, name=f"{loaded.name}:{','.join(changed)}") if changed else loaded
