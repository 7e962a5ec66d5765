"""The register of network backends: ids, what was given of them, who uses them.

Nothing is sent by any of them: descriptors that are handed over are taken and
held, and no helper is run. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError, device_not_found, is_identifier
from memd.standin.chardevs import Chardevs, Held, TakeFd

_MOST = 1024
"""Backends that clients may have added at a time."""

_NOT_BACKENDS = ("nic", "none")
_FD_MEMBERS = ("fd", "fds", "vhostfd", "vhostfds")


class Netdev:
    """A network backend.

    Attributes:
        id: its id.
        type: which kind (QAPI `NetClientDriver`).
        options: what it was given.
        peer: the device that uses it, by id or type; None for nobody.
        up: whether its link is.
    """

    def __init__(self, id: str, type: str, options: dict[str, Any], fds: list[Held]) -> None:
        self.id = id
        self.type = type
        self.options = options
        self.peer: str | None = None
        self.up = True
        self._fds = fds

    def close(self) -> None:
        """Close the descriptors that were handed over."""
        for each in self._fds:
            each.close()
        self._fds.clear()


class Netdevs:
    """The network backends of a stand-in.

    Args:
        chardevs: those that a vhost-user backend may name.
    """

    def __init__(self, chardevs: Chardevs) -> None:
        self._chardevs = chardevs
        self._known: dict[str, Netdev] = {}
        # The line that tells of a network device, by the device's id.
        self._devices: dict[str, str] = {}

    def find(self, id: str) -> Netdev | None:
        """The backend of that id."""
        return self._known.get(id)

    def all(self) -> list[Netdev]:
        """Every backend, in the order in which they came."""
        return list(self._known.values())

    def add(self, args: dict[str, Any], take_fd: TakeFd) -> None:
        """`netdev_add`.

        Raises:
            QMPError: it can't be; descriptors that it named are closed.
        """
        id, kind = args["id"], args["type"]
        if kind in _NOT_BACKENDS:
            raise QMPError(f"network backend '{kind}' is not compiled into this binary")
        if not is_identifier(id):
            raise QMPError("Parameter 'id' expects an identifier")
        if id in self._known:
            raise QMPError(f"Duplicate ID '{id}'")
        if len(self._known) >= _MOST:
            raise QMPError(f"there are {_MOST} network backends, and may be no more")
        self._check(args)
        fds: list[Held] = []
        try:
            for member in _FD_MEMBERS:
                for name in filter(None, args.get(member, "").split(":")):
                    fd = take_fd(name)
                    if fd is None:
                        raise QMPError(f"File descriptor named '{name}' has not been found")
                    fds.append(fd)
        except BaseException:
            for each in fds:
                each.close()
            raise
        options = {name: value for name, value in args.items() if name not in ("id", "type")}
        self._known[id] = Netdev(id, kind, options, fds)

    def _check(self, args: dict[str, Any]) -> None:
        kind = args["type"]
        if kind == "socket":
            given = sum(name in args for name in ("fd", "listen", "connect", "mcast", "udp"))
            if given != 1:
                raise QMPError("exactly one of listen=, connect=, mcast= or udp= is required")
        elif kind == "vhost-vdpa" and not {"vhostdev", "vhostfd"} & args.keys():
            raise QMPError("vhost-vdpa: neither vhostdev= nor vhostfd= was specified")
        elif kind == "vhost-user":
            name = args["chardev"]
            chardev = self._chardevs.find(name)
            if chardev is None:
                raise QMPError(f'chardev "{name}" not found')
            if chardev.qom_type.name != "chardev-socket":
                raise QMPError(f'chardev "{name}" is not reconnectable')

    def delete(self, args: dict[str, Any]) -> None:
        """`netdev_del`; a device that uses it stays, without it.

        Raises:
            QMPError: there is none.
        """
        found = self._known.pop(args["id"], None)
        if found is None:
            raise device_not_found(f"Device '{args['id']}' not found")
        found.close()

    def clear(self) -> None:
        """Delete every backend."""
        for each in self._known.values():
            each.close()
        self._known.clear()

    def set_link(self, args: dict[str, Any]) -> None:
        """`set_link`, of a backend or a device; raises `QMPError` where there is none."""
        name = args["name"]
        found = self._known.get(name)
        if found is not None:
            found.up = args["up"]
        elif name not in self._devices:
            raise device_not_found(f"Device '{name}' not found")

    def add_device(self, id: str, model: str, address: str) -> None:
        """Note a network device, whose link can be set by its id.

        Args:
            address: on the network.
        """
        self._devices[id] = f"{id}: index=0,type=nic,model={model},macaddr={address}"

    def lines(self) -> list[str]:
        """The lines of `info network`: devices with their backend, other backends alone."""
        found = [_line(each) for each in self._known.values() if each.peer is None]
        for id, line in self._devices.items():
            found.append(line)
            found += [f" \\ {_line(each)}" for each in self._known.values() if each.peer == id]
        return found

    def remove_device(self, id: str) -> None:
        """A network device has gone."""
        self._devices.pop(id, None)


def _line(netdev: Netdev) -> str:
    told = ",net=10.0.2.0,restrict=off" if netdev.type == "user" else ""
    return f"{netdev.id}: index=0,type={netdev.type}{told}"
