"""Where results live: SQLite by default, any SQLAlchemy URL otherwise."""

from bench.store.store import CellRow, Store, Summary

__all__ = ["CellRow", "Store", "Summary"]
