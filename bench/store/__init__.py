"""Where results live: SQLite by default, any SQLAlchemy URL otherwise."""

from bench.store.rows import CellRow, Kind, Summary
from bench.store.store import Store

__all__ = ["CellRow", "Kind", "Store", "Summary"]
