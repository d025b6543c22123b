"""Which model has embedded a version, for each alias"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.row_level_security import protect

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table; code that does not know of it goes on working, and the doctor fills in what it left out."""
    op.create_table(
        "indexed_versions",
        sa.Column(
            "tenant_id",
            sa.Uuid(),
            server_default=sa.text("NULLIF(current_setting('app.tenant_id', true), '')::uuid"),
            nullable=False,
        ),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("model_version", sa.String(length=80), nullable=False),
        sa.Column("indexed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenants.id"], name=op.f("fk_indexed_versions_tenant_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["document_versions.id"], name=op.f("fk_indexed_versions_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "alias", name=op.f("pk_indexed_versions")),
    )
    op.create_index(op.f("ix_indexed_versions_tenant_id"), "indexed_versions", ["tenant_id"], unique=False)
    protect("indexed_versions", app="SELECT, INSERT, UPDATE, DELETE")


def downgrade() -> None:
    """Take it back: nobody knows any more which documents a model has not embedded."""
    op.drop_table("indexed_versions")
