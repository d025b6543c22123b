"""The API's readiness reads the schema's revision"""

from __future__ import annotations

from alembic import op

from migrations.row_level_security import SYSTEM

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Let the role that sees no document see this."""
    op.execute(f"GRANT SELECT ON alembic_version TO {SYSTEM}")


def downgrade() -> None:
    """Take it back."""
    op.execute(f"REVOKE SELECT ON alembic_version FROM {SYSTEM}")
