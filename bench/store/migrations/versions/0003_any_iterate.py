"""Which of two candidates an image of a noisy network meets in a draw is decided by the other draws: counted again.

Packed outcomes are read in their first layout: a header of three integers (1, n, draws), then compressed bits: clean,
last and best, each [n, draws].
"""

import zlib

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_CELLS = sa.table("cells", *map(sa.column, ("key", "status", "draws", "robust_any_hits")))
_CHUNKS = sa.table("chunks", *map(sa.column, ("cell_key", "outcome")))


def upgrade() -> None:
    connection = op.get_bind()
    noisy = sa.select(_CELLS.c.key).where(_CELLS.c.draws > 1, _CELLS.c.status == "done")
    for key in connection.scalars(noisy).all():
        packed = connection.scalars(sa.select(_CHUNKS.c.outcome).where(_CHUNKS.c.cell_key == key)).all()
        try:
            hits = sum(map(_hits, packed))
        except (ValueError, zlib.error):
            # Damaged: whoever asks for this cell is told so, and everything else stays readable.
            continue
        connection.execute(sa.update(_CELLS).where(_CELLS.c.key == key).values(robust_any_hits=hits))


def _hits(outcome: bytes) -> float:
    n, draws = (int(v) for v in np.frombuffer(outcome[4:12], "<u4"))
    body, size = zlib.decompress(outcome[12:]), -(-n * draws // 8)
    raw = np.frombuffer(body, np.uint8, 3 * size).reshape(3, size)
    clean, last, best = (np.unpackbits(part, count=n * draws).astype(bool).reshape(n, draws) for part in raw)
    last, best = clean & last, clean & best
    seen_last, seen_best = (stands.sum(1, keepdims=True) - stands for stands in (last, best))
    return float(np.where(seen_best < seen_last, best, last).mean(1).sum())
