"""Character devices on command lines: `-chardev socket,...`, `-qmp unix:...`.

Texts and their order were observed on QEMU 10.0.2; 11.1.3 differs where
`compat` is looked at. What a QEMU has and memd hasn't (tn3270, websockets,
ranges of ports, abstract names, log files, files and terminals as devices) is
refused, never ignored: a client would meet something else than was asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from memd.cli.opts import Opts, OptsList, extend
from memd.compat import Compat
from memd.config import Chardev
from memd.errors import QMPError
from memd.json_types import JSONObject

BACKENDS = ("null", "socket", "stdio")
"""The backends that memd has."""

_STRINGS = (
    *("backend", "chardev", "chardevs.0", "chardevs.1", "chardevs.2", "chardevs.3"),
    *("fd", "host", "input-path", "localaddr", "localport", "logfile", "name", "path"),
    *("port", "tls-authz", "tls-creds"),
)
_BOOLS = (
    *("abstract", "append", "clipboard", "delay", "ipv4", "ipv6", "logappend", "mouse"),
    *("mux", "nodelay", "server", "signal", "telnet", "tight", "tn3270", "wait", "websocket"),
)
_NUMBERS = ("cols", "debug", "height", "reconnect-ms", "rows", "to", "width")

_OF_RELEASE = {
    Compat.V10_0: {"reconnect": "num"},
    Compat.V11_1: {"encoding": "str", "logtimestamp": "bool"},
}

_TLS_CREDS = ("tls-creds-x509",)
"""The types of objects that hold TLS credentials."""

NOTHING: Mapping[str, str] = {}

UNSPOKEN = ("tn3270", "websocket")
"""What may be spoken on a TCP connection, and is not by monitors."""

PROTOCOLS = ("telnet", *UNSPOKEN)
"""All that may be."""

_LONGEST_HOST = 64
"""Characters of a host in `tcp:HOST:PORT`, as in QEMU."""


def chardev_list(compat: Compat, *, extra: Mapping[str, str] = NOTHING) -> OptsList:
    """The keys of `-chardev`: one list for all backends, as in QEMU.

    Args:
        compat: whose list.
        extra: what else it has, and of what kind it is: a monitor's, for `--qmp`.
    """
    kinds = {
        **dict.fromkeys(_STRINGS, "str"),
        **dict.fromkeys(_BOOLS, "bool"),
        **dict.fromkeys(_NUMBERS, "num"),
        **_OF_RELEASE[compat],
        "size": "size",
    }
    return OptsList("chardev", "backend", {**kinds, **extra})


def describe_backends() -> str:
    """The answer to `-chardev help`."""
    return "Available chardev backend types: \n" + "".join(f"  {name}\n" for name in BACKENDS)


def parse_device(spec: str, known: OptsList, *, stdio_takes_options: bool = False) -> Opts:
    """The options that an address such as `unix:/run/x,server=on` stands for.

    Args:
        spec: the address.
        known: what may follow it; see `chardev_list`.
        stdio_takes_options: whether some may follow `stdio`; QEMU says no.

    Raises:
        QMPError: it can't be; without a text where QEMU has none but the last
            line, "parse error".
    """
    spec = spec.removeprefix("mon:")
    opts, known = Opts(), known._replace(implied=None)
    kind, colon, rest = spec.partition(":")
    backend = "socket"
    if spec in ("stdio", "null"):
        backend = spec
    elif stdio_takes_options and spec.startswith("stdio,"):
        backend, _, rest = spec.partition(",")
    elif kind == "unix" and colon:
        known = known._replace(implied="path")
    elif kind == "udp" and colon:
        opts.pairs += [("backend", kind), *_udp_ends(rest)]
        return opts
    elif kind in ("tcp", *PROTOCOLS) and colon:
        host, port, rest = _split_tcp(rest)
        opts.pairs += [("host", host), ("port", port)]
        if kind != "tcp":
            opts.pairs.append((kind, "on"))
    else:
        raise QMPError(f"'{spec}' is not a valid char driver")
    opts.pairs.append(("backend", backend))
    extend(opts, known, rest)
    return opts


def _udp_ends(text: str) -> list[tuple[str, str]]:
    """`[HOST]:PORT[@[HOST]:PORT]`, the other end and this one."""
    there, at, here = text.partition("@")
    ends = [("host", "port", there)]
    if at:
        ends.append(("localaddr", "localport", here))
    found = []
    for host, port, end in ends:
        name, _colon, number = end.rpartition(":")
        if not number or (host == "host" and ":" not in end):
            raise QMPError("")
        found += [(host, name)] * bool(name) + [(port, number)]
    return found


def _split_tcp(text: str) -> tuple[str, str, str]:
    """Host, port and the options after them; IPv6 addresses stand in brackets."""
    address, _, rest = text.partition(",")
    if address.startswith("["):
        host, bracket, port = address[1:].partition("]:")
        if not bracket:
            raise QMPError("")
    else:
        host, _, port = address.partition(":")
    if not port or len(host) > _LONGEST_HOST:
        raise QMPError("")
    return host, port, rest


def make_chardev(
    opts: Opts,
    id: str,
    compat: Compat,
    objects: Sequence[Mapping[str, Any]] = (),
    *,
    where: str = "",
) -> Chardev:
    """The character device that options describe.

    Args:
        opts: checked against `chardev_list`.
        id: its name.
        compat: whose texts.
        objects: the options of those that there will be; TLS credentials are
            looked for among them.
        where: see `Chardev`.

    Raises:
        QMPError: they contradict each other, or ask for what memd hasn't.
    """
    backend = opts.get("backend")
    if backend is None:
        raise QMPError(f'chardev: "{id}" missing backend')
    if backend not in BACKENDS:
        raise QMPError(f"'{backend}' is not a valid char driver name")
    if opts.get("logfile") is not None:
        raise QMPError("'logfile' is not supported")
    mux = opts.switch("mux") or False
    if backend != "socket":
        return Chardev(id, backend, mux=mux, where=where)
    made = make_socket(opts, id, compat, objects)
    _check_unsupported(opts, made.kind)
    return made._replace(mux=mux, where=where)


def make_socket(
    opts: Opts, id: str, compat: Compat, objects: Sequence[Mapping[str, Any]] = ()
) -> Chardev:
    """The socket that options describe, whatever is spoken on it; see `make_chardev`."""
    kind = _kind(opts)
    server = opts.switch("server") or False
    tls_creds = _credentials(opts, kind, server, objects)
    _check_combinations(opts, kind, server, compat)
    seconds = opts.number("reconnect") or 0
    return Chardev(
        id,
        kind,
        path=opts.get("path") or "",
        fd=_descriptor(opts.get("fd") or "") if kind == "fd" else -1,
        host=opts.get("host") or "",
        port=opts.get("port") or "",
        family=_family(opts) if kind == "tcp" else "",
        server=server,
        wait=server and opts.switch("wait") is not False,
        reconnect=0 if server else max(0, opts.number("reconnect-ms") or seconds * 1000),
        tls_creds=tls_creds,
        telnet=opts.switch("telnet") or False,
    )


def with_mux(id: str, backend: JSONObject, mux: bool) -> list[tuple[str, JSONObject]]:
    """What `-chardev` makes, by its id: a backend, or a mux, and below it the backend."""
    base = f"{id}-base"
    above = {"type": "mux", "data": {"chardev": base}}
    return [(base, backend), (id, above)] if mux else [(id, backend)]


def _kind(opts: Opts) -> str:
    """The kind of address; makes the rest of QEMU's checks of the address alone."""
    given = [key for key in ("path", "fd", "host") if opts.has(key)]
    if len(given) > 1:
        raise QMPError("None or one of 'path', 'fd' or 'host' option required.")
    if given == ["host"] and not opts.has("port"):
        raise QMPError("chardev: socket: no port given")
    if opts.has("delay") and opts.has("nodelay"):
        raise QMPError("'delay' and 'nodelay' are mutually exclusive")
    if given == ["path"]:
        return "unix"
    # A port alone means every address to listen at, and this machine to connect to.
    return "tcp" if opts.has("port") and given != ["fd"] else "fd"


def _credentials(
    opts: Opts, kind: str, server: bool, objects: Sequence[Mapping[str, Any]]
) -> str | None:
    """The id of the TLS credentials that are to be used, None for none."""
    id = opts.get("tls-creds")
    if id is None:
        return None
    found = [each for each in objects if each["id"] == id and each["qom-type"] in _TLS_CREDS]
    if not found:
        raise QMPError(f"No TLS credentials with id '{id}'")
    side = "server" if server else "client"
    if found[0].get("endpoint", "client") != side:
        raise QMPError(f"Expected TLS credentials for a {side} endpoint")
    if kind != "tcp":
        raise QMPError(f"'tls_creds' option is incompatible with '{kind}' address type")
    return id


def _check_combinations(opts: Opts, kind: str, server: bool, compat: Compat) -> None:
    """Raise `QMPError` where options contradict each other; in QEMU's order."""
    reconnect = "reconnect" if compat is Compat.V10_0 else "reconnect-ms"
    if kind == "fd" and opts.has(reconnect):
        raise QMPError(f"'{reconnect}' option is incompatible with 'fd' address type")
    if opts.has("tls-authz") and not opts.has("tls-creds"):
        raise QMPError("'tls_authz' option requires 'tls_creds' option")
    if not server:
        _check_client(opts)
    elif opts.has(reconnect):
        raise QMPError(f"'{reconnect}' option is incompatible with socket in server listen mode")


def _check_client(opts: Opts) -> None:
    if opts.switch("websocket"):
        raise QMPError("Websocket client is not implemented")
    if opts.has("wait"):
        raise QMPError("'wait' option is incompatible with socket in client connect mode")
    if opts.has("reconnect") and opts.has("reconnect-ms"):
        raise QMPError("'reconnect' and 'reconnect-ms' are mutually exclusive")


def _check_unsupported(opts: Opts, kind: str) -> None:
    for key in (*UNSPOKEN, "abstract"):
        if opts.switch(key):
            raise QMPError(f"'{key}' is not supported")
    if opts.switch("telnet") and opts.has("tls-creds"):
        raise QMPError("'telnet' is not supported with 'tls-creds'")
    for key in ("to", "tls-authz"):
        if kind == "tcp" and opts.has(key):
            raise QMPError(f"'{key}' is not supported")


def _family(opts: Opts) -> str:
    from memd.hostmem.sockets import tcp_family

    return tcp_family(opts.switch("ipv4"), opts.switch("ipv6"))


def _descriptor(text: str) -> int:
    """An inherited socket's number, in decimal."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not (digits.isascii() and digits.isdigit()):
        raise QMPError(f"Unable to parse FD number {text}")
    fd = int(text) if len(text) < 12 else 1 << 31
    if not -(1 << 31) <= fd < 1 << 31:
        raise QMPError(f"Unable to parse FD number {text}: Numerical result out of range")
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        is_socket = False
    if not is_socket:
        raise QMPError(f"File descriptor '{text}' is not a socket")
    return fd
