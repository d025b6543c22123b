"""Requests that may be sent twice; fewer indexes on rows that change all the time"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.row_level_security import protect

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("now()")


# Each change of a job or a step had to keep them up, and no query needs them: see `sluice.jobs.models`.
_NEEDLESS = (
    ("ix_jobs_tenant_id", "jobs", "tenant_id", None),
    ("ix_jobs_state", "jobs", "state", None),
    ("ix_job_steps_tenant_id", "job_steps", "tenant_id", None),
    ("ix_job_steps_lease", "job_steps", "lease_until", sa.text("state = 'running'")),
    ("ix_job_attempts_tenant_id", "job_attempts", "tenant_id", None),
    ("ix_outbox_tenant_id", "outbox", "tenant_id", None),
)


def upgrade() -> None:
    """Add a table, drop indexes; code that does not know of it goes on working."""
    for name, table, _, _ in _NEEDLESS:
        op.drop_index(name, table)
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "tenant_id",
            sa.Uuid(),
            server_default=sa.text("NULLIF(current_setting('app.tenant_id', true), '')::uuid"),
            nullable=False,
        ),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="1", nullable=False),
        sa.Column("begun_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_idempotency_keys_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("user_id", "key", name=op.f("uq_idempotency_keys_user_id_key")),
    )
    op.create_index(op.f("ix_idempotency_keys_tenant_id"), "idempotency_keys", ["tenant_id"], unique=False)
    op.create_index("ix_idempotency_keys_created", "idempotency_keys", ["created_at"], unique=False)
    everything = "SELECT, INSERT, UPDATE, DELETE"
    protect("idempotency_keys", app=everything, system="SELECT, UPDATE, DELETE")


def downgrade() -> None:
    """Take it back: requests that are sent again are done again."""
    for name, table, column, where in _NEEDLESS:
        op.create_index(name, table, [column], unique=False, postgresql_where=where)
    op.drop_table("idempotency_keys")
