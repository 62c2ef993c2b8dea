"""Indices for a million cells: each answers a question that was a scan of all of them. Counts that grow large."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.drop_index("ix_cells_table", "cells")
    columns = ["dataset", "model", "defense", "attack", "eps", "seed", "norm", "status", "verdict"]
    op.create_index("ix_cells_table", "cells", columns)
    op.create_index("ix_cells_done", "cells", ["key", "status"], if_not_exists=True)
    op.create_index("ix_cells_created", "cells", ["created"], if_not_exists=True)
    op.create_index("ix_weights_sha256", "weights", ["sha256"], if_not_exists=True)
    if op.get_bind().dialect.name == "postgresql":
        # SQLite's integers have 64 bits anyway.
        for name in ("seed", "forwards", "backwards"):
            op.alter_column("cells", name, type_=sa.BigInteger)
