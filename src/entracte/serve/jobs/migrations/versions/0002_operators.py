"""Keys of operators, sessions, sizes of inputs, and positions of deleted videos."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """SQLite only: no other database has had an earlier version."""
    for statement in (
        "ALTER TABLE keys ADD COLUMN operator BOOLEAN NOT NULL DEFAULT 0",
        "UPDATE keys SET operator = 1 WHERE created_at = (SELECT min(created_at) FROM keys)",
        "ALTER TABLE jobs ADD COLUMN input_bytes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE deliveries ADD COLUMN owner VARCHAR(40) NOT NULL DEFAULT ''",
        "ALTER TABLE jobs ADD COLUMN warnings JSON NOT NULL DEFAULT '[]'",
    ):
        op.execute(statement)
    op.create_table(
        "sessions",
        sa.Column("hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "deleted_jobs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("id", sa.String(38), nullable=False, unique=True),
        sa.Column("owner", sa.String(40), nullable=False),
        if_not_exists=True,
    )
