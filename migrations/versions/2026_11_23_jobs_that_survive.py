"""Dead letters, workers, the audit log, and what jobs need for reindexing, liveness and fair turns"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.row_level_security import APP, SYSTEM, protect

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CURRENT_TENANT = sa.text("NULLIF(current_setting('app.tenant_id', true), '')::uuid")
_NOW = sa.text("now()")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add tables and columns; code that does not know them goes on working."""
    _extend_jobs()
    _extend_versions()
    _create_dead_letters()
    _create_audit()
    _create_workers()
    # Tenants take turns by who was served last; looked up for each tenant that waits.
    op.create_index("ix_outbox_turns", "outbox", ["tenant_id", "queue", "published_at"], unique=False)
    op.create_index(
        "ix_outbox_waiting",
        "outbox",
        ["tenant_id", "queue", "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("published_at IS NULL"),
    )
    op.create_index(
        "ix_outbox_published", "outbox", ["published_at"], unique=False,
        postgresql_where=sa.text("published_at IS NOT NULL"),
    )  # fmt: skip


def downgrade() -> None:
    """Take everything back; dead letters and the audit log are lost."""
    for index in ("ix_outbox_published", "ix_outbox_waiting", "ix_outbox_turns"):
        op.drop_index(index, "outbox")
    op.execute("DROP SEQUENCE worker_locks")
    for table in ("workers", "audit", "dead_letters"):
        op.drop_table(table)
    op.drop_index("uq_document_versions_content", "document_versions")
    # Documents that are being read again have two versions of the same bytes; the index of before allows one.
    op.execute("UPDATE document_versions SET superseded_at = now() WHERE reread_of IS NOT NULL")
    op.create_index(
        "uq_document_versions_content",
        "document_versions",
        ["source_id", "content_hash"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.drop_column("document_versions", "reread_of")
    op.drop_column("job_steps", "holder")
    op.drop_index("ix_jobs_doctor", "jobs")
    op.drop_index("ix_jobs_parent_id", "jobs")
    op.drop_index("ix_jobs_source", "jobs")
    for column in ("stage_started_at", "result", "options", "parent_id", "source_id"):
        op.drop_column("jobs", column)


def _extend_jobs() -> None:
    op.add_column("jobs", sa.Column("source_id", sa.Uuid(), nullable=True))
    op.add_column("jobs", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.add_column("jobs", sa.Column("options", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("jobs", sa.Column("result", postgresql.JSONB(), nullable=True))
    op.add_column("jobs", sa.Column("stage_started_at", _TIME, nullable=True))
    op.create_index("ix_jobs_source", "jobs", ["tenant_id", "source_id"], unique=False)
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"], unique=False)
    op.create_index(
        "ix_jobs_doctor", "jobs", ["tenant_id", "created_at"], unique=False,
        postgresql_where=sa.text("kind = 'doctor'"),
    )  # fmt: skip
    op.add_column("job_steps", sa.Column("holder", sa.BigInteger(), nullable=True))
    op.execute("CREATE SEQUENCE worker_locks AS integer CYCLE")
    op.execute(f"GRANT USAGE ON SEQUENCE worker_locks TO {APP}")


def _extend_versions() -> None:
    op.add_column("document_versions", sa.Column("reread_of", sa.Uuid(), nullable=True))
    op.drop_index("uq_document_versions_content", "document_versions")
    op.create_index(
        "uq_document_versions_content",
        "document_versions",
        ["source_id", "content_hash"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL AND reread_of IS NULL"),
    )


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        # Nobody's, when a message cannot be read.
        sa.Column("tenant_id", sa.Uuid(), server_default=_CURRENT_TENANT, nullable=True),
        sa.Column("origin", sa.String(length=10), nullable=False),
        sa.Column("message_id", sa.String(length=100), nullable=True),
        sa.Column("queue", sa.String(length=100), nullable=True),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("signature", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("step_id", sa.Uuid(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("step", sa.String(length=40), nullable=True),
        sa.Column("part", sa.Integer(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error_class", sa.String(length=120), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("position", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("headers", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("body", sa.String(), nullable=True),
        sa.Column("created_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("resolved_at", _TIME, nullable=True),
        sa.Column("resolution", sa.String(length=20), nullable=True),
        sa.Column("resolved_by", sa.Uuid(), nullable=True),
        sa.Column("replay_job_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_dead_letters_tenant_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("message_id", name=op.f("uq_dead_letters_message_id")),
    )
    op.create_index(op.f("ix_dead_letters_tenant_id"), "dead_letters", ["tenant_id"], unique=False)
    op.create_index("ix_dead_letters_open", "dead_letters", ["tenant_id", "resolved_at", "id"], unique=False)
    op.create_index(op.f("ix_dead_letters_job_id"), "dead_letters", ["job_id"], unique=False)
    everything = "SELECT, INSERT, UPDATE, DELETE"
    protect("dead_letters", app=everything, system=everything)


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), server_default=_CURRENT_TENANT, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("target_kind", sa.String(length=40), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=True),
        sa.Column("detail", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("request_id", sa.String(length=200), nullable=True),
        sa.Column("previous", sa.LargeBinary(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_audit_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_audit_tenant_id_number")),
    )
    op.create_index(op.f("ix_audit_tenant_id"), "audit", ["tenant_id"], unique=False)
    # Append-only: nobody but the owner of the schema may change or remove what was written.
    protect("audit", app="SELECT, INSERT")


def _create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("started_at", _TIME, server_default=_NOW, nullable=False),
        sa.Column("heartbeat_at", _TIME, server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    # No tenant's: workers serve all of them.
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON workers TO {APP}, {SYSTEM}")
