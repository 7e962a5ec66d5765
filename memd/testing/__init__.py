"""A real QMP server for tests, which misbehaves when told to.

    from memd.testing import Server

    def test_of_my_client():
        with Server() as server:
            server.fault(command="query-status", error={"desc": "not now"})
            my_client = MyClient(server.socket)
            ...
            server.expect("qmp_capabilities", "query-status")
            server.check_schema()

pytest has fixtures for it (`memd.testing.plugin`), unittest a class to inherit
(`MemdTestCase`), everything else the command `memd-test`. See docs/testing.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memd.testing.case import MemdTestCase
    from memd.testing.checks import Unexpected
    from memd.testing.recorder import Recorder
    from memd.testing.server import Server, ServerDied

__all__ = ["MemdTestCase", "Recorder", "Server", "ServerDied", "Unexpected"]

_MODULES = {
    "MemdTestCase": "case",
    "Recorder": "recorder",
    "Server": "server",
    "ServerDied": "server",
    "Unexpected": "checks",
}


def __getattr__(name: str) -> object:
    # pytest imports this package wherever memd is installed: not one module more
    # than it asks for.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"memd.testing.{_MODULES[name]}"), name)
