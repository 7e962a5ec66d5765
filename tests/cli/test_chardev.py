from __future__ import annotations

import socket

import pytest

from memd.cli.chardev import BACKENDS, chardev_list, describe_backends, make_chardev, parse_device
from memd.cli.opts import parse_opts
from memd.compat import Compat
from memd.config import Chardev
from memd.errors import QMPError

CREDENTIALS = (
    {"qom-type": "tls-creds-x509", "id": "tls0", "endpoint": "server", "dir": "/"},
    {"qom-type": "tls-creds-x509", "id": "tls1", "dir": "/"},
    {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096},
)


def make(text: str, compat: Compat = Compat.V10_0) -> Chardev:
    return make_chardev(parse_opts(chardev_list(compat), text), "c0", compat, CREDENTIALS)


def shown(chardev: Chardev) -> dict[str, object]:
    """What is not as it is by default."""
    default = Chardev("c0", "unix")
    return {
        name: value
        for name, value in chardev._asdict().items()
        if value != getattr(default, name) and name not in ("where", "spec")
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", {"kind": "null"}),
        ("stdio,signal=off", {"kind": "stdio"}),
        ("socket,path=/s", {"path": "/s"}),
        ("socket,path=/s,reconnect=3", {"path": "/s", "reconnect": 3000}),
        ("socket,path=/s,reconnect-ms=3", {"path": "/s", "reconnect": 3}),
        ("socket,path=/s,reconnect=-1", {"path": "/s"}),
        ("socket,path=/s,server=on", {"path": "/s", "server": True, "wait": True}),
        ("socket,path=/s,server=on,wait=off", {"path": "/s", "server": True}),
        ("socket,path=/s,server,nowait", {"path": "/s", "server": True}),
        ("socket,path=/s,server=on,server=off", {"path": "/s"}),
        (
            "socket,path=/s,telnet=off,websocket=off,abstract=off,mux=on,delay=off",
            {"path": "/s", "mux": True},
        ),
        ("socket,host=h,port=1", {"kind": "tcp", "host": "h", "port": "1"}),
        ("socket,host=::1,port=1", {"kind": "tcp", "host": "::1", "port": "1"}),
        ("socket,port=1", {"kind": "tcp", "port": "1"}),
        (
            "socket,host=h,port=1,ipv4=on",
            {"kind": "tcp", "host": "h", "port": "1", "family": "ipv4"},
        ),
        (
            "socket,host=h,port=1,ipv4=off",
            {"kind": "tcp", "host": "h", "port": "1", "family": "ipv6"},
        ),
        (
            "socket,host=h,port=1,ipv6=on,ipv4=on",
            {"kind": "tcp", "host": "h", "port": "1"},
        ),
        (
            "socket,host=h,port=1,server=on,wait=off,tls-creds=tls0",
            {"kind": "tcp", "host": "h", "port": "1", "server": True, "tls_creds": "tls0"},
        ),
        (
            "socket,host=h,port=1,tls-creds=tls1",
            {"kind": "tcp", "host": "h", "port": "1", "tls_creds": "tls1"},
        ),
        ("backend=null,backend=socket,path=/s", {"path": "/s"}),
    ],
)
def test_made(text: str, expected: dict[str, object]) -> None:
    assert shown(make(text)) == expected


def test_an_inherited_socket() -> None:
    with socket.socket() as sock:
        chardev = make(f"socket,fd={sock.fileno()},server=on,wait=off")
        assert (chardev.kind, chardev.fd) == ("fd", sock.fileno())


FD = "'reconnect' option is incompatible with 'fd' address type"
SERVER = "'reconnect' option is incompatible with socket in server listen mode"
CLIENT = "'wait' option is incompatible with socket in client connect mode"
ONE = "None or one of 'path', 'fd' or 'host' option required."

REFUSED = [
    ("", 'chardev: "c0" missing backend'),
    ("foo", "'foo' is not a valid char driver name"),
    ("pty", "'pty' is not a valid char driver name"),
    ("socket", "Unable to parse FD number "),
    ("socket,server=on", "Unable to parse FD number "),
    ("socket,fd=", "Unable to parse FD number "),
    ("socket,fd=x", "Unable to parse FD number x"),
    ("socket,fd=0x3", "Unable to parse FD number 0x3"),
    ("socket,fd=²", "Unable to parse FD number ²"),
    (
        "socket,fd=99999999999",
        "Unable to parse FD number 99999999999: Numerical result out of range",
    ),
    (
        "socket,fd=999999999999999",
        "Unable to parse FD number 999999999999999: Numerical result out of range",
    ),
    ("socket,fd=-1", "File descriptor '-1' is not a socket"),
    ("socket,fd=+1000000", "File descriptor '+1000000' is not a socket"),
    ("socket,path=s,fd=3", ONE),
    ("socket,host=h,path=s,tls-creds=x", ONE),
    ("socket,path=s,fd=,host=", ONE),
    ("socket,host=h,wait=off", "chardev: socket: no port given"),
    ("socket,path=s,delay=on,nodelay=on", "'delay' and 'nodelay' are mutually exclusive"),
    ("socket,path=s,tls-creds=x,wait=off", "No TLS credentials with id 'x'"),
    ("socket,path=s,tls-creds=m0", "No TLS credentials with id 'm0'"),
    ("socket,fd=3,reconnect=3,tls-creds=x", "No TLS credentials with id 'x'"),
    ("socket,host=h,port=1,tls-creds=tls0", "Expected TLS credentials for a client endpoint"),
    (
        "socket,host=h,port=1,server=on,tls-creds=tls1",
        "Expected TLS credentials for a server endpoint",
    ),
    (
        "socket,path=s,server=on,tls-creds=tls0",
        "'tls_creds' option is incompatible with 'unix' address type",
    ),
    ("socket,host=h,port=1,tls-creds=tls1,tls-authz=a", "'tls-authz' is not supported"),
    ("socket,path=s,tls-authz=x", "'tls_authz' option requires 'tls_creds' option"),
    ("socket,fd=3,reconnect=3,tls-authz=x", FD),
    ("socket,fd=3,reconnect=3,server=on", FD),
    ("socket,path=s,server=on,reconnect=0", SERVER),
    ("socket,path=s,server=on,reconnect=1,reconnect-ms=1", SERVER),
    ("socket,path=s,wait=off,websocket=on", "Websocket client is not implemented"),
    ("socket,path=s,wait=on,reconnect=1,reconnect-ms=1", CLIENT),
    ("socket,path=s,server=off,wait=off", CLIENT),
    (
        "socket,path=s,reconnect=1,reconnect-ms=1",
        "'reconnect' and 'reconnect-ms' are mutually exclusive",
    ),
    ("socket,path=s,tn3270=on", "'tn3270' is not supported"),
    ("socket,path=s,tn3270=on", "'tn3270' is not supported"),
    ("socket,path=s,server=on,websocket=on", "'websocket' is not supported"),
    ("socket,path=s,abstract=on", "'abstract' is not supported"),
    ("socket,host=h,port=1,to=3", "'to' is not supported"),
    ("null,logfile=x", "'logfile' is not supported"),
    (
        "socket,host=h,port=1,ipv4=off,ipv6=off",
        "Cannot disable IPv4 and IPv6 at same time",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        make(text)
    assert caught.value.desc == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("socket,path=s,reconnect=1", "Invalid parameter 'reconnect'"),
        (
            "socket,path=s,server=on,reconnect-ms=0",
            "'reconnect-ms' option is incompatible with socket in server listen mode",
        ),
        (
            "socket,fd=3,reconnect-ms=0",
            "'reconnect-ms' option is incompatible with 'fd' address type",
        ),
    ],
)
def test_refused_by_a_later_release(text: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        make(text, Compat.V11_1)
    assert caught.value.desc == message


def device(spec: str, *, extended: bool = False) -> dict[str, str]:
    known = chardev_list(Compat.V10_0, extra={"pretty": "bool"} if extended else {})
    return dict(parse_device(spec, known, stdio_takes_options=extended).pairs)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("null", {"backend": "null"}),
        ("stdio", {"backend": "stdio"}),
        ("mon:stdio", {"backend": "stdio"}),
        ("unix:", {"backend": "socket"}),
        ("unix:/s", {"backend": "socket", "path": "/s"}),
        ("unix:a,,b,server=on", {"backend": "socket", "path": "a,b", "server": "on"}),
        ("unix:server", {"backend": "socket", "path": "server"}),
        (
            "unix:fd=3,server,nowait",
            {"backend": "socket", "fd": "3", "server": "on", "wait": "off"},
        ),
        ("tcp:h:1", {"backend": "socket", "host": "h", "port": "1"}),
        ("tcp::1,", {"backend": "socket", "host": "", "port": "1"}),
        ("tcp::1:2", {"backend": "socket", "host": "", "port": "1:2"}),
        ("tcp:[::1]:4444", {"backend": "socket", "host": "::1", "port": "4444"}),
        (f"tcp:{'h' * 64}:1", {"backend": "socket", "host": "h" * 64, "port": "1"}),
        ("unix:/s,id=0", {"backend": "socket", "path": "/s"}),
    ],
)
def test_addresses(spec: str, expected: dict[str, str]) -> None:
    assert device(spec) == expected
    assert device(spec, extended=True) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "'' is not a valid char driver"),
        ("foo", "'foo' is not a valid char driver"),
        ("unix", "'unix' is not a valid char driver"),
        ("UNIX:s", "'UNIX:s' is not a valid char driver"),
        ("mon:foo", "'foo' is not a valid char driver"),
        ("stdio,", "'stdio,' is not a valid char driver"),
        ("null,x=1", "'null,x=1' is not a valid char driver"),
        ("pty", "'pty' is not a valid char driver"),
        ("telnet:h", ""),
        ("unix:s,pretty=on", "Invalid parameter 'pretty'"),
        ("unix:s,help", "Invalid parameter 'help'"),
        ("unix:a=b", "Invalid parameter 'a'"),
        ("tcp:h:1,,", "Invalid parameter ''"),
        ("tcp:", ""),
        ("tcp:h", ""),
        ("tcp:h:", ""),
        ("tcp:host=h,port=1", ""),
        ("tcp:[::1]", ""),
        ("tcp:[::1:4444", ""),
        (f"tcp:{'h' * 65}:1", ""),
    ],
)
def test_no_addresses(spec: str, message: str) -> None:
    with pytest.raises(QMPError) as caught:
        device(spec)
    assert caught.value.desc == message


def test_more_than_qemu_takes() -> None:
    assert device("stdio,pretty=on", extended=True) == {"backend": "stdio", "pretty": "on"}
    assert device("unix:s,pretty=on", extended=True)["pretty"] == "on"


def test_the_backends_are_told() -> None:
    lines = describe_backends().splitlines()
    assert lines[0].rstrip() == "Available chardev backend types:"
    assert [line.strip() for line in lines[1:]] == list(BACKENDS)
