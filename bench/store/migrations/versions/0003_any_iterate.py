"""An image of a noisy network meets one candidate in all draws: what was counted per draw is counted again."""

import sqlalchemy as sa
from alembic import op

from bench.outcome import Outcome

revision = "0003"
down_revision = "0002"

_CELLS = sa.table("cells", *map(sa.column, ("key", "status", "draws", "robust_any_hits")))
_CHUNKS = sa.table("chunks", *map(sa.column, ("cell_key", "outcome")))


def upgrade() -> None:
    connection = op.get_bind()
    noisy = sa.select(_CELLS.c.key).where(_CELLS.c.draws > 1, _CELLS.c.status == "done")
    for key in connection.scalars(noisy).all():
        packed = connection.scalars(sa.select(_CHUNKS.c.outcome).where(_CHUNKS.c.cell_key == key)).all()
        hits = sum(float(Outcome.unpack(outcome).robust_any.sum()) for outcome in packed)
        connection.execute(sa.update(_CELLS).where(_CELLS.c.key == key).values(robust_any_hits=hits))
