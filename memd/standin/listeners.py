"""Listening sockets of servers that a stand-in lacks: each client is disconnected.

So an address is taken as by a QEMU, and no client waits for an answer that never comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.secret import find_secret
from memd.backends.tls_creds import TLSCredentials
from memd.errors import QMPError
from memd.json_types import JSON
from memd.places import USER
from memd.standin.channels import Channel, listen, make
from memd.work import Completion, Job, Turn

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.channels import Address


class Listeners:
    """The sockets that are listened at, by the name of the server that would be there.

    Args:
        machine: has the tree, and runs what waits.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        # What begins to listen has no channel yet.
        self._open: dict[str, tuple[Channel | None, Completion]] = {}

    def has(self, name: str) -> bool:
        """Whether that is listened at, or begins to be."""
        return name in self._open

    def addresses(self, name: str) -> list[JSON]:
        """Where it is listened (QAPI `SocketAddress`)."""
        channel, _closed = self._open.get(name, (None, None))
        return [] if channel is None else channel.listening

    def object(self, id: str) -> object:
        """The object that a client has made with that id, or None."""
        return self._machine.tree.objects.get(id)

    def check_credentials(self, id: str) -> None:
        """Raise `QMPError` where there are no TLS credentials of that id for a server."""
        found = self.object(id)
        if not isinstance(found, TLSCredentials):
            raise QMPError(f"No TLS credentials with id '{id}'")
        if found.endpoint != "server":
            raise QMPError("Expected TLS credentials for a server endpoint")

    def check_secret(self, id: str) -> None:
        """Raise `QMPError` where there is no secret of that id."""
        find_secret(self._machine.tree, id)

    async def open(self, name: str, where: Address) -> None:
        """Listen; raises `QMPError` where that can't be."""
        roots, account = self._machine.tree.host.roots, self._machine.tree.objects.account
        opening = self._open[name] = None, (closed := Completion())
        try:
            channel = await make(where, lambda: listen(where, roots), account, USER.get())
        except BaseException:
            if self._open.get(name) == opening:
                del self._open[name]
            raise
        if self._open.get(name) != opening:
            await Job(channel.close)
            raise QMPError(f"{name}: it was closed while it was being opened")
        self._open[name] = channel, closed
        self._machine.spawn(self._turn_away(name, channel, closed), f"listening for {name} clients")

    async def _turn_away(self, name: str, channel: Channel, closed: Completion) -> None:
        try:
            while self._open.get(name) == (channel, closed):
                come = channel.accept()
                if come is None:
                    await channel.ready()
                else:
                    come.disconnect()
                    # Others have theirs, however many come.
                    await Turn()
            await Job(channel.close)
        finally:
            closed.set()

    async def end(self, name: str) -> None:
        """Listen there no more; its address is free once this ends."""
        channel, closed = self._open.pop(name)
        if channel is not None:
            channel.interrupt()
            await closed

    def remove_names(self) -> None:
        """Remove the sockets: the process ends. May wait."""
        for channel, _closed in self._open.values():
            if channel is not None:
                channel.remove_name()

    async def close(self) -> None:
        """Listen nowhere any more."""
        for name in [*self._open]:
            await self.end(name)
