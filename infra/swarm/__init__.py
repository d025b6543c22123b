"""Sluice on Docker Swarm. Runs on a manager with nothing but Python's standard library and the docker command."""
