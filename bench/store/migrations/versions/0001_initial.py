"""Runs, weights, cells and their chunks of outcomes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    stamp = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("created", stamp, nullable=False),
        sa.Column("provenance", sa.JSON, nullable=False),
    )
    op.create_table(
        "weights",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("log", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Double),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("created", stamp, nullable=False),
    )
    op.create_table(
        "cells",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("weights_key", sa.String(80), sa.ForeignKey("weights.key"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("dataset", sa.String(200), nullable=False),
        sa.Column("model", sa.String(80), nullable=False),
        sa.Column("defense", sa.String(200), nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("attack", sa.String(200), nullable=False),
        sa.Column("norm", sa.String(8), nullable=False),
        sa.Column("eps", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("draws", sa.Integer, nullable=False),
        sa.Column("clean_hits", sa.Double),
        sa.Column("robust_hits", sa.Double),
        sa.Column("robust_any_hits", sa.Double),
        sa.Column("worst_draw_hits", sa.Integer),
        sa.Column("flags", sa.JSON),
        sa.Column("forwards", sa.Integer, nullable=False),
        sa.Column("backwards", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("created", stamp, nullable=False),
        sa.Column("updated", stamp, nullable=False),
    )
    op.create_index("ix_cells_table", "cells", ["dataset", "model", "defense", "attack"])
    op.create_index("ix_cells_weights", "cells", ["weights_key"])
    op.create_table(
        "chunks",
        sa.Column("cell_key", sa.String(64), sa.ForeignKey("cells.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("start", sa.Integer, primary_key=True),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("outcome", sa.LargeBinary, nullable=False),
    )
