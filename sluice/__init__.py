"""What Sluice knows and does, without a web framework, a queue worker or a model in sight."""

from importlib.metadata import version

__version__ = version("sluice")
