"""The schema's history, run by `alembic upgrade head` as the owner of the tables."""
