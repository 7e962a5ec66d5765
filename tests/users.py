"""Processes of other users, for tests that run as root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.conftest import NOT_HERE

NOBODY = 65534
"""The user that owns nothing (and its group)."""

STRANGER = 4321
"""A user id that nobody has on an ordinary machine."""

# The interpreter may stand where only root can read, so it becomes another
# user only once it runs, and has imported what it will need.
_BECOME = """
import json, os, select, socket, sys, time
os.setgroups([{groups}])
os.setresgid({group}, {group}, {group})
os.setresuid({user}, {user}, {user})
"""

need_root = pytest.mark.skipif(os.geteuid() != 0, reason=f"{NOT_HERE}root")
"""For tests that start processes of other users."""


def run_as(
    user: int, code: str, *arguments: str, group: int = NOBODY, groups: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Run Python code as another user; it has `json`, `os`, `select`, `socket`, `sys`, `time`.

    Args:
        user: its user id.
        code: what it runs; standard input and output are pipes.
        arguments: its `sys.argv[1:]`.
        group: its group id.
        groups: its supplementary group ids.
    """
    become = _BECOME.format(user=user, group=group, groups=",".join(map(str, groups)))
    return subprocess.Popen(
        [sys.executable, "-c", become + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
