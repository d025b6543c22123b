"""The `sluice` command: what the API does, from a shell."""
