"""The one door through which every dataset comes in."""

from pathlib import Path

from bench.data.dataset import Dataset, DatasetSource
from bench.data.npz import load_npz
from bench.registry import DATASETS


def load_dataset(name: str, data_dir: Path) -> Dataset:
    """Load a dataset by registered name, or a user's own by the path of its `.npz` file.

    Args:
        name: for example `digits`, `cifar10`, `my/data.npz`.
        data_dir: where downloaded datasets are kept.

    Raises:
        BenchError: unknown name, missing or damaged file, or tensors that break the contract of `Dataset`.
    """
    if name.endswith(".npz"):
        return load_npz(Path(name))
    source: DatasetSource = DATASETS.get(name)
    return source.load(data_dir)
