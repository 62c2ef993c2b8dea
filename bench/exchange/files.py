"""Files of results by their suffix."""

from pathlib import Path

from bench.errors import BenchError
from bench.exchange.bundle import Bundle, read_bundle, write_bundle
from bench.exchange.parquet import read_parquet, write_parquet

SUFFIXES = (".json", ".json.gz", ".parquet")


def write_results(path: Path, bundle: Bundle) -> None:
    """Write a bundle as JSON, compressed JSON or Parquet, as the name ends.

    Raises:
        BenchError: another ending, or the file cannot be written.
    """
    _check(path)
    (write_parquet if path.suffix == ".parquet" else write_bundle)(path, bundle)


def read_results(path: Path) -> Bundle:
    """Read what `write_results` wrote, whatever it is called now; raises where it is missing or damaged."""
    try:
        with path.open("rb") as file:
            begins = file.read(4)
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror or error}") from error
    return (read_parquet if begins == b"PAR1" else read_bundle)(path)


def _check(path: Path) -> None:
    if not path.name.endswith(SUFFIXES):
        raise BenchError(f"'{path}' must end in {', '.join(SUFFIXES)}")
