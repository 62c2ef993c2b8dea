"""A bundle as one Parquet file: a row a cell, readable by any data-frame library, and back without loss."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.atomic import write_atomically
from bench.errors import BenchError
from bench.exchange.bundle import FORMAT, LARGEST, Bundle, bundle_json, bundle_of_json

_JSON = ("spec", "provenance")


def write_parquet(path: Path, bundle: Bundle) -> None:
    """Write a bundle as Parquet: labels and costs as columns, `spec` and `provenance` as JSON text, `outcome` as bytes.

    Raises:
        BenchError: pyarrow is not installed, or the file cannot be written.
    """
    arrow, parquet = _pyarrow()
    whole = bundle_json(bundle)
    rows = []
    for cell in whole.pop("cells"):
        labels = cell.pop("labels")
        rows.append({**labels, **cell, **{name: json.dumps(cell[name], sort_keys=True) for name in _JSON}})
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    table = arrow.table(columns).replace_schema_metadata({FORMAT: json.dumps(whole, sort_keys=True)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path) -> Bundle:
    """Read what `write_parquet` wrote, with all checks of `read_bundle`.

    Raises:
        BenchError: pyarrow is not installed, or the file is missing, damaged or of another kind.
    """
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {})[FORMAT.encode()])
            cells = [_cell(row) for row in _rows(file, path)]
    except OSError as error:
        raise BenchError(f"cannot read '{path}': {error.strerror or 'it is not a readable Parquet file'}") from error
    except (arrow.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"'{path}' is not a Parquet file of results; write one with: bench export FILE") from error
    return bundle_of_json({**about, "cells": cells}, str(path))


def _rows(file: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Rows one by one: a column of one large value, many times over, is small in a file and enormous outside."""
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    batches = file.iter_batches(batch_size=16) if size <= LARGEST else iter(())
    read = 0
    while size <= LARGEST and read <= LARGEST and (batch := next(batches, None)) is not None:
        read += batch.nbytes
        yield from batch.to_pylist()
    if max(size, read) > LARGEST:
        raise BenchError(f"'{path}' unpacks to over {LARGEST >> 20:,} MiB, which no file of results does")


def _cell(row: dict[str, Any]) -> dict[str, Any]:
    names = ("dataset", "model", "defense", "seed", "attack", "norm", "eps")
    labels = {name: row.pop(name) for name in names}
    return {**row, "labels": labels, **{name: json.loads(row[name]) for name in _JSON}}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BenchError(
            "Parquet needs pyarrow: pip install 'snn-bench[parquet]', or name a file that ends in .json.gz"
        ) from error
    return pyarrow, pyarrow.parquet
