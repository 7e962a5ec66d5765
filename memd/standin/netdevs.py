"""The register of networks: backends, devices and hubs, and which is connected to which.

Nothing is sent by any of them: descriptors that are handed over are taken and
held, and no helper is run. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

from memd.compat import Compat
from memd.devices.machine import Asked, Device
from memd.errors import QMPError, device_not_found, is_identifier
from memd.json_types import JSON, JSONObject
from memd.standin.chardevs import Chardevs, Held, TakeFd

if TYPE_CHECKING:
    from memd.places import Account, Share
    from memd.standin.user_network import Forwarding

_NOT_BACKENDS = ("nic", "none")
_FD_MEMBERS = ("fd", "fds", "vhostfd", "vhostfds")

_FORWARDS = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ"
"""The head of the lines about ports that a network forwards."""

MAC = r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"
"""An address on the network."""

_OWN_ADDRESSES = "52:54:00:12:34:"
_FIRST = 0x56
_NO_ADDRESS = "00:00:00:00:00:00"


class NetClient:
    """What may be connected to another one.

    Attributes:
        id: how it is told.
        type: which kind (QAPI `NetClientDriver`).
        peer: what it is connected to, None for nothing.
    """

    def __init__(self, id: str, type: str) -> None:
        self.id = id
        self.type = type
        self.peer: NetClient | None = None

    @property
    def told(self) -> str:
        """What is told of it besides its kind."""
        return ""

    @property
    def line(self) -> str:
        """Its line in `info network`."""
        return f"{self.id}: index=0,type={self.type},{self.told}"

    def connect(self, other: NetClient) -> None:
        """Connect it with another one."""
        self.peer, other.peer = other, self

    def disconnect(self) -> None:
        """Leave it alone."""
        if self.peer is not None:
            self.peer.peer = None
        self.peer = None


_VLANS = 4096


class Nic(NetClient):
    """A network device.

    Attributes:
        model: its type.
        address: on the network.
    """

    def __init__(self, id: str, model: str) -> None:
        super().__init__(id, "nic")
        self.model = model
        self.address = ""

    @property
    def told(self) -> str:
        return f"model={self.model},macaddr={self.address}"


class Netdev(NetClient):
    """A network backend.

    Attributes:
        options: what it was given.
        deletable: whether `netdev_del` takes it; one of `-net` stays.
        forwards: the ports of the host's that it forwards, each with what it counts as.
    """

    def __init__(self, id: str, type: str, options: JSONObject, fds: list[Held]) -> None:
        super().__init__(id, type)
        self.options = options
        self.deletable = True
        self.forwards: dict[Forwarding, Share | None] = {}
        self._fds = fds

    @property
    def told(self) -> str:
        if self.type == "user":
            from memd.standin.user_network import told_network

            restricted = "on" if self.options.get("restrict") else "off"
            return f"net={told_network(self.options)},restrict={restricted}"
        if self.type == "socket":
            for name in ("mcast", "udp"):
                if name in self.options:
                    return f"socket: {name}={self.options[name]}"
        if self.type == "stream" and self.options.get("server"):
            return "listening"
        return ""

    def close(self) -> None:
        """Close the descriptors that were handed over."""
        for each in self._fds:
            each.close()
        self._fds.clear()


class Netdevs:
    """The network backends of a stand-in.

    Args:
        chardevs: those that a vhost-user backend may name.
        account: counts them.
        compat: whose rules.
    """

    def __init__(self, chardevs: Chardevs, account: Account, compat: Compat) -> None:
        self._chardevs = chardevs
        self._compat = compat
        self._account = account
        # Backends and devices, in the order in which they came.
        self._known: dict[str, Netdev] = {}
        self._clients: list[NetClient] = []
        # The ports of each hub, by its number; the first ones first.
        self._hubs: dict[int, list[Netdev]] = {}
        # What backends count as, and hubs, by their numbers; nothing the daemon's own.
        self._shares: dict[Netdev | int, Share] = {}
        # How many devices have the addresses of which these are the last bytes.
        self._addresses: Counter[int] = Counter()
        # The devices that the machine makes, each with what it is connected to.
        self._own: list[Asked] = []
        # The names and models of those that it has not made.
        self._asked_for: dict[Nic, tuple[str | None, str]] = {}
        self._made_up = 0

    def find(self, id: str) -> Netdev | None:
        """The backend of that id."""
        return self._known.get(id)

    def add(self, args: JSONObject, take_fd: TakeFd, *, own: bool = False) -> None:
        """`netdev_add`.

        Args:
            own: whether its id is one of `make_up_id`.

        Raises:
            QMPError: it can't be; descriptors that it named are closed.
        """
        id, kind = args["id"], args["type"]
        if kind in _NOT_BACKENDS:
            raise QMPError(f"network backend '{kind}' is not compiled into this binary")
        if not (own or is_identifier(id)):
            raise QMPError("Parameter 'id' expects an identifier")
        if id in self._known:
            raise QMPError(f"Duplicate ID '{id}'")
        forwards = self._check(args)
        other = self._other_of(args)
        new_hub = kind == "hubport" and args["hubid"] not in self._hubs
        shares = [self._account.charge(args)]
        fds: list[Held] = []
        try:
            if new_hub:
                shares.append(self._account.charge(None))
            for member in _FD_MEMBERS:
                for name in filter(None, args.get(member, "").split(":")):
                    fds.append(take_fd(name))
        except BaseException:
            for each in fds:
                each.close()
            for share in shares:
                share.end()
            raise
        options = {name: value for name, value in args.items() if name not in ("id", "type")}
        made = self._known[id] = Netdev(id, kind, options, fds)
        made.forwards = dict.fromkeys(forwards)
        self._shares[made] = shares[0]
        if new_hub:
            # It stays.
            self._shares[args["hubid"]] = shares[1]
        self._clients.append(made)
        if kind == "hubport":
            self._hubs.setdefault(args["hubid"], []).append(made)
        if other is not None:
            made.connect(other)

    def make_up_id(self) -> str:
        """An id for a backend that the command line gives none."""
        self._made_up += 1
        return f"#net{self._made_up - 1}{os.urandom(1)[0] % 100:02}"

    def add_to_hub(self, netdev: str | None) -> Netdev:
        """Add a port to the first hub, and connect a backend with it; gives the port."""
        ports = self._hubs.setdefault(0, [])
        port = Netdev(f"hub0port{len(ports)}", "hubport", {"hubid": 0}, [])
        ports.append(port)
        self._clients.append(port)
        if netdev is not None:
            port.connect(self._known[netdev])
            self._known[netdev].deletable = False
        return port

    def ask_for(
        self,
        name: str | None,
        named: str,
        model: str,
        slot: str,
        address: str,
        netdev: str | None,
        values: JSONObject,
    ) -> None:
        """Have the machine make a device.

        Args:
            name: what it is called where the machine makes none, None for nothing.
            named: the model that was asked for, "" for the machine's own.
            model: its type.
            slot: where it goes, see `Asked`.
            address: its address; "" for one that is made up.
            netdev: the backend that it is connected to, None for a port of the first hub.
            values: its properties.

        Raises:
            QMPError: there is no such backend, or no such address.
        """
        if address and not re.fullmatch(MAC, address):
            raise QMPError("invalid syntax for ethernet address")
        if netdev is not None and netdev not in self._known:
            raise QMPError(f"netdev '{netdev}' not found")
        peer = self.add_to_hub(None) if netdev is None else self._known[netdev]
        nic = Nic("", model)
        # It is taken, whether or not the machine makes the device.
        nic.address = self._take_address(address)
        self._asked_for[nic] = name, named
        self._own.append(Asked(slot, model, made=partial(self._made, nic, peer, values)))

    def asked(self) -> Iterable[Asked]:
        """The devices that the machine makes."""
        return self._own

    def _made(self, nic: Nic, peer: Netdev, values: JSONObject, device: Device) -> None:
        del self._asked_for[nic]
        nic.connect(peer)
        self.add_device(nic, None, nic.address)
        device.values |= values

    def _other_of(self, args: JSONObject) -> Netdev | None:
        """The backend that a port of a hub is for."""
        if args["type"] != "hubport" or "netdev" not in args:
            return None
        name = args["netdev"]
        other = self._known.get(name)
        if other is None:
            raise QMPError(f"netdev '{name}' not found")
        if other.peer is not None:
            raise QMPError(f"netdev '{name}' is in use")
        return other

    def _check(self, args: JSONObject) -> list[Forwarding]:
        """Raise `QMPError` where a backend can't be; gives the ports that it forwards."""
        kind = args["type"]
        if kind == "socket":
            given = sum(name in args for name in ("fd", "listen", "connect", "mcast", "udp"))
            if given != 1:
                raise QMPError("exactly one of listen=, connect=, mcast= or udp= is required")
        elif kind == "user":
            from memd.standin.user_network import check

            return check(args, self._compat)
        elif kind == "dgram":
            _check_datagrams(args.get("local"), args.get("remote"))
        elif kind == "vhost-vdpa" and not {"vhostdev", "vhostfd"} & args.keys():
            raise QMPError("vhost-vdpa: neither vhostdev= nor vhostfd= was specified")
        elif kind == "vhost-user":
            name = args["chardev"]
            chardev = self._chardevs.find(name)
            if chardev is None:
                raise QMPError(f'chardev "{name}" not found')
            if chardev.qom_type.name != "chardev-socket":
                raise QMPError(f'chardev "{name}" is not reconnectable')
        return []

    def forward(self, id: str | None, rule: str) -> None:
        """`hostfwd_add`: a user network forwards another port.

        Args:
            id: of the network; None for the first one.

        Raises:
            QMPError: it can't.
        """
        from memd.standin.user_network import forwarding

        network, made = self._user_network(id), forwarding(rule, self._compat)
        for each in self._known.values():
            if made.port and any(made[:3] == other[:3] for other in each.forwards):
                raise QMPError(f"Could not set up host forwarding rule '{rule}'")
        network.forwards[made] = self._account.charge({"rule": rule})

    def forward_no_more(self, id: str | None, source: str) -> bool:
        """`hostfwd_remove`; gives whether the port was forwarded.

        Args:
            id: of the network; None for the first one.
            source: protocol, address and port.

        Raises:
            QMPError: that can't be.
        """
        from memd.standin.user_network import forwarded

        network, wanted = self._user_network(id), forwarded(source)
        if wanted is None:
            raise QMPError("invalid format")
        for each in network.forwards:
            if each[:3] == wanted:
                _end(network.forwards.pop(each))
                return True
        return False

    def _user_network(self, id: str | None) -> Netdev:
        if id is None:
            for each in self._known.values():
                if each.type == "user":
                    return each
            raise QMPError("user mode network stack not in use")
        found = self._known.get(id)
        if found is None:
            raise QMPError(f"unrecognized netdev id '{id}'")
        if found.type != "user":
            raise QMPError("invalid device specified")
        return found

    def forwards(self) -> Iterator[str]:
        """The lines of `info usernet`."""
        from memd.standin.user_network import forwarding_line

        hubs = {port.peer: number for number, ports in self._hubs.items() for port in ports}
        for each in self._known.values():
            if each.type == "user":
                yield f"Hub {hubs.get(each, -1)} ({each.id}):"
                yield _FORWARDS
                # The newest first, those of a protocol together.
                newest = [*reversed(each.forwards)]
                for rule in sorted(newest, key=lambda rule: rule.protocol):
                    yield forwarding_line(rule, each.options)

    def delete(self, args: JSONObject) -> None:
        """`netdev_del`; a device that uses it stays, without it.

        Raises:
            QMPError: there is none, or it stays.
        """
        found = self._known.get(args["id"])
        if found is None:
            raise device_not_found(args["id"])
        if not found.deletable:
            raise QMPError(f"Device '{args['id']}' is not a netdev")
        del self._known[args["id"]]
        found.close()
        self._clients.remove(found)
        if not isinstance(found.peer, Nic):
            # A device keeps it for as long as it is there.
            self._forget(found)

    def _forget(self, netdev: Netdev) -> None:
        for share in (self._shares.pop(netdev, None), *netdev.forwards.values()):
            _end(share)
        netdev.disconnect()
        for ports in self._hubs.values():
            if netdev in ports:
                ports.remove(netdev)

    async def close(self) -> None:
        """Close every backend."""
        for each in self._known.values():
            each.close()
            for share in each.forwards.values():
                _end(share)
        for share in self._shares.values():
            share.end()

    def set_link(self, args: JSONObject) -> None:
        """`set_link`, of a backend or a device; raises `QMPError` where there is none."""
        if not any(each.id == args["name"] for each in self._clients):
            raise device_not_found(args["name"])

    def add_device(self, nic: Nic, id: str | None, address: str) -> str:
        """A network device is there; gives its address.

        Args:
            nic: what a backend may be connected to already.
            id: its own, None where it has none.
            address: the one that it was given; none is "" or zeroes.
        """
        if id is None:
            like = sum(isinstance(each, Nic) and each.model == nic.model for each in self._clients)
            nic.id = f"{nic.model}.{like}"
        nic.address = address = self._take_address(address)
        self._clients.append(nic)
        return address

    def _take_address(self, address: str) -> str:
        if address in ("", _NO_ADDRESS):
            free = next((each for each in range(_FIRST, 0xFF) if not self._addresses[each]), 0xFF)
            address = f"{_OWN_ADDRESSES}{free:02x}"
        self._count(address, 1)
        return address

    def _count(self, address: str, more: int) -> None:
        if address.startswith(_OWN_ADDRESSES):
            self._addresses[int(address[-2:], 16)] += more

    def remove_device(self, nic: Nic) -> None:
        """A network device has gone, if it was there, and a backend that was deleted before it."""
        if nic in self._clients:
            self._clients.remove(nic)
            self._count(nic.address, -1)
        netdev = nic.peer
        nic.disconnect()
        if isinstance(netdev, Netdev) and self._known.get(netdev.id) is not netdev:
            self._forget(netdev)

    def warnings(self) -> Iterator[str]:
        """What may not be meant so, once the machine is made."""
        for number, ports in reversed(self._hubs.items()):
            kinds = []
            for port in reversed(ports):
                if port.peer is None:
                    yield f"hub port {port.id} has no peer"
                else:
                    kinds.append(port.peer.type)
            if kinds and "nic" not in kinds:
                yield f"hub {number} with no nics"
            elif set(kinds) == {"nic"}:
                yield f"hub {number} is not connected to host network"
        for client in self._clients:
            if client.peer is None:
                yield f"{'nic' if isinstance(client, Nic) else 'netdev'} {client.id} has no peer"
        for name, model in self._asked_for.values():
            yield (
                f"requested NIC ({name or 'anonymous'}, model {model or 'unspecified'}) was not"
                " created (not supported by this machine?)"
            )

    def rx_filters(self, args: JSONObject) -> list[JSON]:
        """The value of `query-rx-filter`: no guest has set any; raises `QMPError`."""
        name = args.get("name")
        if name is None:
            return [_rx_filter(each) for each in self._clients if _has_rx_filter(each)]
        for client in self._clients:
            if client.id == name:
                if not isinstance(client, Nic):
                    raise QMPError(f"net client({name}) isn't a NIC")
                if not _has_rx_filter(client):
                    raise QMPError(f"net client({name}) doesn't support rx-filter querying")
                return [_rx_filter(client)]
        raise QMPError(f"invalid net client name: {name}")

    def lines(self) -> list[str]:
        """The lines of `info network`: hubs with their ports, devices with their backend, others.

        Whatever is connected to a port of a hub is told there alone.
        """
        found = []
        in_hubs: set[NetClient] = set()
        for number, ports in reversed(self._hubs.items()):
            found.append(f"hub {number}")
            for port in reversed(ports):
                found.append(
                    f" \\ {port.id}" + ("" if port.peer is None else f": {port.peer.line}")
                )
                in_hubs |= {port, port.peer or port}
        for client in self._clients:
            if client in in_hubs:
                continue
            if client.peer is None or isinstance(client, Nic):
                found.append(client.line)
                if client.peer is not None:
                    found.append(f" \\ {client.peer.line}")
        return found


def _end(share: Share | None) -> None:
    if share is not None:
        share.end()


def _has_rx_filter(client: NetClient) -> TypeGuard[Nic]:
    return isinstance(client, Nic) and client.model.startswith("virtio-net-")


def _rx_filter(nic: Nic) -> JSON:
    return {
        "name": nic.id,
        "main-mac": nic.address,
        "promiscuous": True,
        "broadcast-allowed": False,
        "unicast": "normal",
        "unicast-overflow": False,
        "unicast-table": [],
        "multicast": "normal",
        "multicast-overflow": False,
        "multicast-table": [],
        "vlan": "all",
        "vlan-table": [*range(_VLANS - 1, -1, -1)],
    }


def _check_datagrams(local: JSONObject | None, remote: JSONObject | None) -> None:
    """Raise `QMPError` where the two addresses of a `dgram` backend do not go together."""
    if remote is not None and remote["type"] == "inet" and _is_multicast(remote["host"]):
        if local is not None and local["type"] not in ("inet", "fd"):
            raise QMPError("only support inet or fd type for local")
    elif local is None:
        raise QMPError("dgram requires local= parameter")
    elif remote is not None and local["type"] == "fd":
        raise QMPError("don't set remote with local.fd")
    elif remote is not None and remote["type"] != local["type"]:
        raise QMPError("remote and local types must be the same")
    elif remote is None and local["type"] != "fd":
        raise QMPError("type=inet or type=unix requires remote parameter")
    elif local["type"] == "vsock":
        raise QMPError("only support inet or fd type for local")


def _is_multicast(host: str) -> bool:
    from ipaddress import IPv4Address

    try:
        return IPv4Address(host).is_multicast
    except ValueError:
        return False
