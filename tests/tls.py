"""Certificates made with openssl(1), directories of them, and a client that speaks TLS."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from memd.json_types import JSON
from tests.differential.server import PATIENCE, Message

NOW = ("20200101000000Z", "20600101000000Z")
PAST = ("20200101000000Z", "20210101000000Z")
FUTURE = ("20590101000000Z", "20600101000000Z")
"""When a certificate holds: from, until."""

AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign"
LEAF = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
    "subjectAltName=DNS:localhost,IP:127.0.0.1"
)

_CONFIG = """[req]
distinguished_name=name
[name]
[ca]
default_ca=ca_default
[ca_default]
database={0}/index
new_certs_dir={0}
default_md=sha256
default_crl_days=10000
policy=any
unique_subject=no
rand_serial=yes
[any]
countryName=optional
organizationName=optional
commonName=supplied
"""


class Certificates:
    """A place where certificates are made.

    Files are `NAME.pem` and `NAME.key`.

    Args:
        place: an empty directory.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._folders = itertools.count()
        (place / "config").write_text(_CONFIG.format(place), encoding="ascii")
        (place / "index").touch()
        self.issue("ca", subject="/CN=authority", extensions=AUTHORITY)
        self.issue("other-ca", subject="/CN=another authority", extensions=AUTHORITY)
        self.issue("server", by="ca", extensions=f"{LEAF}\nextendedKeyUsage=serverAuth")
        self.issue("client", by="ca", extensions=f"{LEAF}\nextendedKeyUsage=clientAuth")
        self.good = self.folder(ca_cert="ca", server_cert="server", server_key="server.key")
        self.good_client = self.folder(ca_cert="ca", client_cert="client", client_key="client.key")

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(
            ["openssl", *arguments], cwd=self.place, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"openssl {' '.join(arguments)}\n{done.stderr}"

    def issue(
        self,
        name: str,
        *,
        by: str | None = None,
        subject: str = "/CN=localhost",
        extensions: str = LEAF,
        holds: tuple[str, str] = NOW,
        key: str | None = None,
    ) -> str:
        """Make a certificate, signed by another's key, or its own; returns `name`.

        Args:
            key: whose key it has; its own new one, if None.
        """
        if (self.place / f"{name}.pem").exists():
            return name
        config = ("-config", "config")
        if key is None:
            curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
            keyed = [*curve, "-nodes", "-keyout", f"{name}.key"]
        else:
            shutil.copy(self.place / f"{key}.key", self.place / f"{name}.key")
            keyed = ["-key", f"{name}.key"]
        (self.place / "extensions").write_text(f"{extensions}\n", encoding="ascii")
        self._openssl("req", "-new", *config, *keyed, "-subj", subject, "-out", f"{name}.csr")
        self._openssl(
            *("ca", "-batch", *config, "-notext", "-in", f"{name}.csr", "-out", f"{name}.pem"),
            *("-startdate", holds[0], "-enddate", holds[1], "-extfile", "extensions"),
            *(
                ("-selfsign", "-keyfile", f"{name}.key")
                if by is None
                else ("-cert", f"{by}.pem", "-keyfile", f"{by}.key")
            ),
        )
        return name

    def encrypted_key(self) -> str:
        """The server's key, with a password; returns its file's name."""
        target = "encrypted.key"
        self._openssl("pkcs8", "-topk8", "-in", "server.key", "-passout", "pass:x", "-out", target)
        return target

    def revocations(self, *revoked: str) -> str:
        """The authority's list of revoked certificates; returns its file's name."""
        signer = ("-config", "config", "-cert", "ca.pem", "-keyfile", "ca.key")
        for name in revoked:
            self._openssl("ca", *signer, "-revoke", f"{name}.pem")
        self._openssl("ca", *signer, "-gencrl", "-out", "revoked.crl")
        return "revoked.crl"

    def read(self, name: str) -> bytes:
        """What is in `NAME.pem`, or in the file `name`."""
        path = self.place / name
        return (path if path.suffix else path.with_suffix(".pem")).read_bytes()

    def folder(self, where: Path | None = None, /, **files: str | bytes | Sequence[str]) -> Path:
        """A directory as `tls-creds-x509` wants one.

        Args:
            where: the directory, a new one if None.
            files: what it holds, by name (`ca_cert` is `ca-cert.pem`): the name
                of a certificate, of several for one file, or its bytes.
        """
        folder = where or self.place / f"folder{next(self._folders)}"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            if isinstance(content, str):
                content = self.read(content)
            elif not isinstance(content, bytes):
                content = b"".join(map(self.read, content))
            (folder / f"{name.replace('_', '-')}.pem").write_bytes(content)
        return folder

    def client_context(
        self, own: str | None = "client", *, trusts: str = "ca", version: str | None = None
    ) -> ssl.SSLContext:
        """A client's side: its certificate, whom it trusts, TLS "1.2" or "1.3"."""
        context = ssl.create_default_context(cafile=self.place / f"{trusts}.pem")
        if own is not None:
            context.load_cert_chain(self.place / f"{own}.pem", self.place / f"{own}.key")
        if version is not None:
            chosen = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
            context.minimum_version = context.maximum_version = chosen
        return context


class Client:
    """A QMP client over TLS; closed by `with`.

    Args:
        port: where the server listens, on this machine.
        context: see `Certificates.client_context`.
        host: an address of this machine.
    """

    def __init__(self, port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
        plain = socket.create_connection((host, port), PATIENCE)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.file.close()
        self.socket.close()

    def read(self) -> Message:
        """The next message; raises `EOFError` at the end."""
        line = self.file.readline()
        if not line:
            raise EOFError
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def send(self, *commands: Message) -> None:
        """Send commands in one go."""
        self.socket.sendall(b"".join(json.dumps(each).encode() + b"\n" for each in commands))

    def execute(self, command: str, **arguments: JSON) -> Message:
        """Send a command; its answer. Underscores in arguments stand for dashes."""
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.send({"execute": command, "arguments": named})
        return self.read()


def negotiated(port: int, context: ssl.SSLContext) -> Client:
    """A client that has left capabilities negotiation."""
    client = Client(port, context)
    client.read()
    assert client.execute("qmp_capabilities") == {"return": {}}
    return client


def is_served(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> bool:
    """Whether a client gets a greeting."""
    try:
        with Client(port, context, host) as client:
            return "QMP" in client.read()
    except (OSError, EOFError):
        return False


def server_options(
    folder: Path, port: int = 0, *, host: str = "127.0.0.1", wait: str = "off", **more: str
) -> list[str]:
    """The options that serve QMP over TLS, credentials `tls0` and chardev `secure`."""
    further = "".join(f",{name.replace('_', '-')}={value}" for name, value in more.items())
    return [
        *("-object", f"tls-creds-x509,id=tls0,dir={folder},endpoint=server{further}"),
        "-chardev",
        f"socket,id=secure,host={host},port={port},server=on,wait={wait},tls-creds=tls0",
        *("-mon", "chardev=secure,mode=control"),
    ]
