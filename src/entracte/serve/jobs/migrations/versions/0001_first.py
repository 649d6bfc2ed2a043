"""The first version, as SQLite files have it that no revision has touched."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing: new databases are made whole."""
