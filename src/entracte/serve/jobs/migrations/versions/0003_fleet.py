"""Workers on other machines: who they are, what they show, and which file a video ended in."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "jobs", sa.Column("file", sa.String(80), nullable=False, server_default="video.mp4")
    )
    op.create_index("by_lease", "jobs", ["status", "lease_until"])
    op.create_table(
        "workers",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("view", sa.JSON, nullable=False),
        sa.Column("seen_at", sa.Float, nullable=False),
    )
    op.create_table(
        "previews",
        sa.Column("video_id", sa.String(38), primary_key=True),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("image", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
