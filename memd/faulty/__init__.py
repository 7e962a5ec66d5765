"""Misbehaviour as told, for the tests of clients: what `--test-faults` adds.

Nothing of this is imported otherwise. It stands in front of the daemon, not in
it: another hub makes other sessions, whose transport and dispatcher do as told
and leave the rest to the ordinary ones.
"""

from __future__ import annotations

from memd.faulty.hub import FaultyHub, faulty_hub

__all__ = ["FaultyHub", "faulty_hub"]
