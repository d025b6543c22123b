"""What belongs to a job refers to its tenant through the job alone"""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES: Final = ("job_steps", "job_attempts", "outbox")


def upgrade() -> None:
    """Drop references that lock the tenant's row with every insert; older code does not notice."""
    for table in _TABLES:
        op.drop_constraint(op.f(f"fk_{table}_tenant_id"), table, type_="foreignkey")


def downgrade() -> None:
    """Bring them back."""
    for table in _TABLES:
        op.create_foreign_key(
            op.f(f"fk_{table}_tenant_id"), table, "tenants", ["tenant_id"], ["id"], ondelete="CASCADE"
        )
