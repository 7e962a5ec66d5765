from __future__ import annotations

import subprocess
import sys

import pytest

import memd.client
from memd.client import aio
from tests.differential.server import TREE


def test_everything_is_there() -> None:
    for name in memd.client.__all__:
        assert getattr(memd.client, name) is not None
    assert memd.client.AsyncClient is aio.AsyncClient
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        memd.client.Nothing  # noqa: B018


def test_asyncio_is_imported_by_who_wants_it() -> None:
    code = (
        "import sys; from memd.client import Client; print('asyncio' in sys.modules);"
        " from memd.client import AsyncClient; print('asyncio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TREE
    )
    assert done.stdout == "False\nTrue\n"
