"""Who may see which rows: the second fence behind the session's own filter.

Three roles, none of which is a superuser or may bypass row-level security:
`sluice_owner` owns the tables and runs migrations; `sluice_app` sees the rows of the tenant that its transaction
names, and none when it names none; `sluice_system` sees all tenants' users and jobs, and no document at all.
"""

from __future__ import annotations

from typing import Final

from alembic import op

from sluice.db.base import CURRENT_TENANT

APP: Final = "sluice_app"
SYSTEM: Final = "sluice_system"


def require_roles() -> None:
    """Stop with a sentence when the roles are missing: they belong to the server and not to this database."""
    op.execute(
        f"""
        DO $$ BEGIN
          IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('{APP}', '{SYSTEM}')) < 2 THEN
            RAISE EXCEPTION 'The roles {APP} and {SYSTEM} do not exist: create them (LOGIN, without SUPERUSER and '
              'BYPASSRLS) before the migrations run; docs/operations.md shows the two statements.';
          END IF;
        END $$
        """
    )
    op.execute(f"GRANT USAGE ON SCHEMA public TO {APP}, {SYSTEM}")


def protect(table: str, *, app: str, system: str | None = None, owner_column: str = "tenant_id") -> None:
    """Bind the table to row-level security; `app` and `system` are the privileges of the two roles."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    rule = f"{owner_column} = {CURRENT_TENANT}"
    op.execute(f"CREATE POLICY {table}_of_tenant ON {table} TO {APP} USING ({rule}) WITH CHECK ({rule})")
    op.execute(f"GRANT {app} ON {table} TO {APP}")
    if system is not None:
        op.execute(f"CREATE POLICY {table}_of_all ON {table} TO {SYSTEM} USING (true) WITH CHECK (true)")
        op.execute(f"GRANT {system} ON {table} TO {SYSTEM}")
