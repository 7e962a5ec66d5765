"""Composition: what makes the rooms one daemon."""

from memd.app.app import run

__all__ = ["run"]
