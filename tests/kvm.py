"""Whether this machine lets a guest_memfd be made and mapped."""

from __future__ import annotations

import os

import pytest

from memd.errors import QMPError
from memd.hostmem import kvm


def why_not() -> str:
    """What is missing, "" where nothing is."""
    try:
        os.close(kvm.guest_memfd(4096))
    except QMPError as missing:
        return missing.desc
    return ""


_WHY_NOT = why_not()

needs_guest_memfd = pytest.mark.skipif(bool(_WHY_NOT), reason=f"not here: {_WHY_NOT}")
