"""Batch work: a message wakes a worker, PostgreSQL tells it what to do."""
