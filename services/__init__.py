"""Thin ways to run what `sluice` knows."""
