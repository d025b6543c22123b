"""The doctor: looks for what PostgreSQL, the object store and the vector index do not agree on, and mends it."""
