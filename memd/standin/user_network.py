"""Networks of `user` backends: what QEMU's options of one have to be.

Nothing is sent by them. Texts, and which of several mistakes is told, were observed
on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import re
import socket

from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.sockets import UNIX_PATH_MAX
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple
from memd.qapi.numbers import parse_int64

_NUMBER = r"\s*[+-]?(?:0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]*)"
"""A port as C reads it; what follows is not looked at."""

_HOST, _DNS, _DHCP = 0x202, 0x203, 0x20F
"""The addresses in a network, as far as its mask leaves room for them."""

_LONGEST = 255
"""Bytes of a name that a guest is told."""


def check(args: JSONObject, compat: Compat) -> list[Forwarding]:
    """Check a `user` backend as QEMU does; gives the ports that it forwards.

    The character devices of `guestfwd`, and what `smb` names, are not looked at.

    Raises:
        QMPError: QEMU refuses it.
    """
    uses_4, uses_6 = args.get("ipv4"), args.get("ipv6")
    # Who names one kind alone has that one alone.
    has_4 = uses_4 is not False and (uses_4 is not None or not uses_6)
    has_6 = uses_6 is not False and (uses_6 is not None or not uses_4)
    if not has_4 and {"net", "host", "dns"} & args.keys():
        raise QMPError("IPv4 disabled but netmask/host/dns provided")
    if not has_6 and {"ipv6-prefix", "ipv6-host", "ipv6-dns"} & args.keys():
        raise QMPError("IPv6 disabled but prefix/host6/dns6 provided")
    if not has_4 and not has_6:
        raise QMPError("IPv4 and IPv6 disabled")
    _check_v4(args)
    _check_v6(args)
    _check_names(args)
    rules = [forwarding(each["str"], compat) for each in args.get("hostfwd", ())]
    for each in args.get("guestfwd", ()):
        _check_guest_forwarding(each["str"], args)
    return rules


def told_network(options: JSONObject) -> str:
    """The address of the network, which was checked."""
    network, _mask = _network(options)
    return _told(network)


def _check_v4(args: JSONObject) -> None:
    network, mask = _network(args)

    def is_inside(address: int) -> bool:
        return address & mask == network

    def find(name: str, number: int, what: str) -> int:
        text = args.get(name)
        address = network | number & ~mask if text is None else _address(text)
        if address is None:
            raise QMPError(f"Failed to parse {what}")
        return address

    host = find("host", _HOST, "host")
    if not is_inside(host):
        raise QMPError("Host doesn't belong to network")
    dns = find("dns", _DNS, "DNS")
    if dns == host:
        raise QMPError("DNS must be different from host")
    dhcp = find("dhcpstart", _DHCP, "DHCP start address")
    if not is_inside(dhcp):
        raise QMPError("DHCP doesn't belong to network")
    if dhcp in (host, dns):
        raise QMPError("DHCP must be different from host and DNS")
    if "smb" in args and _address(args.get("smbserver", "0")) is None:
        raise QMPError("Failed to parse SMB address")


def _check_v6(args: JSONObject) -> None:
    def find(name: str, default: str, what: str) -> int:
        try:
            address = socket.inet_pton(socket.AF_INET6, args.get(name, default))
        except (OSError, ValueError):
            raise QMPError(f"Failed to parse IPv6 {what}") from None
        return int.from_bytes(address, "big")

    prefix = find("ipv6-prefix", "fec0::", "prefix")
    length = args.get("ipv6-prefixlen", 0) or 64
    if not 0 <= length <= 126:
        text = "Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)"
        raise QMPError(text)
    if "ipv6-host" in args and (find("ipv6-host", "", "host") ^ prefix) >> (128 - length):
        raise QMPError("IPv6 Host doesn't belong to network")
    find("ipv6-dns", "::", "DNS")


def _check_names(args: JSONObject) -> None:
    if args.get("domainname") == "":
        raise QMPError("'domainname' parameter cannot be empty")
    told = {"domainname": "domainname", "hostname": "vhostname"}
    for name in (*told, "tftp-server-name"):
        if len(os.fsencode(args.get(name, ""))) > _LONGEST:
            raise QMPError(f"'{told.get(name, name)}' parameter cannot exceed {_LONGEST} bytes")


class Forwarding(NamedTuple):
    """A port of the host's, or a path, whose connections go to a port of the guest's.

    Attributes:
        protocol: "tcp", "udp" or "unix".
        host: the address, "" for any; or the path.
        port: of the host's, 0 for any.
        guest: the address of the guest, "" for the first one that it may get.
        guest_port: of the guest's.
    """

    protocol: str
    host: str
    port: int
    guest: str
    guest_port: int


def forwarding(rule: str, compat: Compat) -> Forwarding:
    """What a rule says: `[tcp|udp]:[ADDRESS]:PORT-[ADDRESS]:PORT`.

    Since QEMU 11.1 it may be `unix:PATH-[ADDRESS]:PORT` as well.

    Raises:
        QMPError: it is none.
    """
    protocol, *first = rule.split(":", 1)
    if protocol == "unix" and compat is not Compat.V10_0:
        path, *third = "".join(first).rsplit("-", 1)
        wrong = [
            (not third, "Missing - separator"),
            (not path, "Missing unix socket path"),
            (not path.startswith("/"), "unix socket path must be absolute"),
            (len(os.fsencode(path)) >= UNIX_PATH_MAX, "Unix socket path is too long"),
        ]
    else:
        host, *second = "".join(first).split(":", 1)
        port, *third = "".join(second).split("-", 1)
        wrong = [
            (not first, "No : separators"),
            (protocol not in ("", "tcp", "udp"), "Bad protocol name"),
            (not second, "Missing : separator"),
            (not _is_address(host), "Bad host address"),
            (not third, "Bad host port separator"),
            (not 0 <= _port(port) < 1 << 16, "Bad host port"),
        ]
    guest, *last = "".join(third).split(":", 1)
    wrong += [
        (not last, "Missing guest address"),
        (not _is_address(guest), "Bad guest address"),
        (not 0 < _port("".join(last)) < 1 << 16, "Bad guest port"),
    ]
    complaint = next((complaint for found, complaint in wrong if found), None)
    if complaint is not None:
        raise QMPError(f"Invalid host forwarding rule '{rule}' ({complaint})")
    if protocol == "unix":
        return Forwarding(protocol, path, 0, guest, _port(last[0]))
    return Forwarding(protocol or "tcp", _plain(host), _port(port), guest, _port(last[0]))


def forwarded(source: str) -> tuple[str, str, int] | None:
    """The protocol, the address and the port of `[tcp|udp]:[ADDRESS]:PORT`, None for no such."""
    protocol, *rest = source.split(":", 2)
    if protocol not in ("", "tcp", "udp") or len(rest) < 2 or not _is_address(rest[0]):
        return None
    if not re.fullmatch(_NUMBER, rest[1]):
        return None
    return protocol or "tcp", _plain(rest[0]), _port(rest[1])


def forwarding_line(rule: Forwarding, options: JSONObject) -> str:
    """The line of `info usernet` about a rule.

    Args:
        options: of the network.
    """
    network, mask = _network(options)
    first = options.get("dhcpstart") or _told(network | _DHCP & ~mask)
    # Nothing listens, so there is no descriptor.
    where = f"{rule.host or '*':>15} {rule.port:5} {rule.guest or first:>15} {rule.guest_port:5}"
    return f"  {rule.protocol.upper() + '[HOST_FORWARD]':<17} {-1:3} {where}     0     0"


def _plain(host: str) -> str:
    """An address as it is told, "" for any."""
    address = _address(host) if host else 0
    return _told(address) if address else ""


def _told(address: int) -> str:
    return socket.inet_ntoa(address.to_bytes(4, "big"))


def _is_address(text: str) -> bool:
    """Whether it is an IPv4 address, or "" for any."""
    return not text or _address(text) is not None


_GUEST_RULE = r"(?:tcp)?:([^:]*):\s*\+?(\d+)-.*"


def _check_guest_forwarding(rule: str, args: JSONObject) -> None:
    """Raise `QMPError` for what is no `[tcp]:[ADDRESS]:PORT-CHARDEV` of the network."""
    match = re.fullmatch(_GUEST_RULE, rule, re.DOTALL)
    address = _address(match[1] or "0") if match else None
    if match is None or address is None or not 0 < int(match[2]) < 1 << 16:
        raise QMPError(f"Invalid guest forwarding rule '{rule}'")
    network, mask = _network(args)
    taken = [
        network | number & ~mask if args.get(name) is None else _address(args[name])
        for name, number in (("host", _HOST), ("dns", _DNS))
    ]
    if match[1] and (address & mask != network or address in taken):
        raise QMPError(f"Conflicting/invalid host:port in guest forwarding rule '{rule}'")


def _address(text: str) -> int | None:
    """An IPv4 address as C reads one, None for what is none."""
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except (OSError, ValueError):
        return None


def _port(text: str) -> int:
    """The number at the start, -1 for none."""
    match = re.match(_NUMBER, text)
    number = None if match is None else parse_int64(match[0])
    return -1 if number is None else number


def _network(options: JSONObject) -> tuple[int, int]:
    """The address and the mask of the network, of which one may be told; raises `QMPError`."""
    first, slash, rest = options.get("net", "10.0.2.0/24").partition("/")
    address = _address(first)
    if address is None:
        raise QMPError("Failed to parse netmask")
    if not slash:
        length = next(length for prefix, bits, length in _LENGTHS if address >> bits == prefix)
    elif rest and not re.fullmatch(r"\s*[+-]?[0-9]+", rest, re.ASCII):
        mask = _address(rest)
        if mask is None:
            raise QMPError("Failed to parse netmask (trailing chars)")
        return address & mask, mask
    else:
        length = _length(rest)
    mask = (1 << 32) - (1 << (32 - length))
    return address & mask, mask


_LENGTHS = (
    *((0xAC1, 20, 12), (0xC0A8, 16, 16)),
    *((0b0, 31, 8), (0b10, 30, 16), (0b11, 30, 24)),
)
"""Of networks without a mask: what their address begins with, above how many bits, and how many
bits the mask has. Private ones are first, then the classes."""


def _length(digits: str) -> int:
    """The length of a mask, which C keeps 32 bits of; raises `QMPError`."""
    # Of more digits, those which overflow 64 bits, C makes the largest number.
    number = int(digits) if digits and len(digits) < 4000 else 0
    number = number & 0xFFFFFFFF if abs(number) < 1 << 63 else 0
    if not 4 <= number <= 32:
        raise QMPError("Invalid netmask provided (must be in range 4-32)")
    return number
