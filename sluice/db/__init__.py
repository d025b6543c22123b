"""PostgreSQL, the only source of truth: tables, and sessions that cannot forget their tenant."""
