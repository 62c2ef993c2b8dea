"""Searches over the settings of defenses, and what each of them tried."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("key", sa.String(64), primary_key=True),
        *(sa.Column(name, sa.JSON, nullable=False) for name in ("settings", "space")),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "trials",
        sa.Column("study_key", sa.String(64), sa.ForeignKey("studies.key", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("setting", sa.JSON, nullable=False),
        sa.Column("defense", sa.String(400), nullable=False),
        sa.Column("cells", sa.JSON, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
