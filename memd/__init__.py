"""memd: memory backends served over QMP."""

__version__ = "0.1.0"
