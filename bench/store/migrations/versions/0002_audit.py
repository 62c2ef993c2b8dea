"""What is behind a cell's verdict, its decision by majority, and audits of whole networks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("cells", sa.Column("findings", sa.JSON))
    op.add_column("cells", sa.Column("majority_hits", sa.Integer))
    op.create_table(
        "audits",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("weights_key", sa.String(80), sa.ForeignKey("weights.key"), nullable=False),
        sa.Column("model_hash", sa.String(64), nullable=False),
        sa.Column("norm", sa.String(8), nullable=False),
        sa.Column("eps", sa.String(64), nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_audits_network", "audits", ["weights_key", "model_hash", "norm"])
