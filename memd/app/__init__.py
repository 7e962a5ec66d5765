"""Composition: builds the daemon, starts and ends it."""

from memd.app.app import run

__all__ = ["run"]
