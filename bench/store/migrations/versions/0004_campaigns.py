"""Who works on what, how far it is, and why something failed; of each chunk the run that measured it."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("cells", sa.Column("batch", sa.Integer))
    op.add_column("chunks", sa.Column("run_id", sa.Integer))
    op.create_table(
        "failures",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("what", sa.String(400), nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
    )
    process = (("node", sa.String(200)), ("pid", sa.Integer), ("birth", sa.String(40)), ("beat", sa.Integer))
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in process),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked", sa.String(8), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("cells", "stored", "done", "failed")),
        sa.Column("seconds_left", sa.Double),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=False) for name in ("created", "seen")),
    )
    op.create_index("ix_campaigns_state", "campaigns", ["state"])
    op.create_table(
        "workers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("campaign_id", sa.Integer, sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("run_id", sa.Integer, sa.ForeignKey("runs.id"), nullable=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in process),
        sa.Column("ended", sa.Boolean, nullable=False),
        sa.Column("doing", sa.String(400), nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("amount", "total")),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("seen", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_workers_campaign", "workers", ["campaign_id"])
    op.create_table(
        "leases",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("worker_id", sa.Integer, sa.ForeignKey("workers.id"), nullable=False),
    )
    op.create_index("ix_leases_worker", "leases", ["worker_id"])
