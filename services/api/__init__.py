"""The HTTP API: a route translates; it does not decide."""
