"""A clone that does not begin is given up."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from memd.errors import QMPError
from memd.pages import serving
from memd.pages.channel import Channel
from memd.pages.fd_holder import Holder
from memd.pages.reach import Reach
from memd.pages.recording import parse
from memd.pages.store import Store
from memd.pages.template_memory import TemplateMemory
from tests.pages.memory import memory, save
from tests.pages.streams import MEMORY, PAGE, stream


@pytest.mark.parametrize("accepts", [True, False])
async def test_what_is_no_machine(
    directory: Path, monkeypatch: pytest.MonkeyPatch, accepts: bool
) -> None:
    monkeypatch.setattr(serving, "LOADING", 0.2)
    monkeypatch.setattr(serving, "REPORTS", 0.05)
    store = Store(str(directory / "store"))
    save(store, "a", memory(MEMORY // PAGE), devices=stream())
    template = store.open("a")
    template.fetch(0, template.size)
    opened = serving.Opened(parse(template.devices(), template.size), TemplateMemory(template))
    told: list[Any] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "in"))
        listening.listen(1)
        served = serving._Served(
            {"id": 1, "uri": f"unix:{directory}/in"},
            cast("Holder", None),
            Reach(),
            cast("Channel", type("Told", (), {"send": staticmethod(told.append)})()),
        )
        running = asyncio.ensure_future(served.run(opened, -1))
        if accepts:
            await asyncio.sleep(0.05)
            peer, _address = listening.accept()
            # It says something, as what serves QMP does.
            peer.sendall(b"\0\1\0\4")
        with pytest.raises(QMPError, match="in has not begun within 0 s"):
            await asyncio.wait_for(running, 20)
        if accepts:
            peer.close()
    await opened.memory.close()
    store.close()
