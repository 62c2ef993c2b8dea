"""Where results live: SQLite by default, any SQLAlchemy URL otherwise."""

from bench.store.store import CellRow, Kind, Store, Summary

__all__ = ["CellRow", "Kind", "Store", "Summary"]
