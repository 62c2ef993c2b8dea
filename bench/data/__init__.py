"""Datasets: decoded tensors, their hash, and the protocol in which numbers on them mean something."""

from bench.data.dataset import Dataset, DatasetSource, Protocol
from bench.data.load import load_dataset

__all__ = ["Dataset", "DatasetSource", "Protocol", "load_dataset"]
