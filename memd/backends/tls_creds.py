"""`tls-creds-x509`: certificates with which monitors are served over TLS.

Properties, texts and what may change when were observed on QEMU 10.0.2 and
11.1.3: the files are read when the object is made; a later change of
`verify-peer`, `priority` or `endpoint` counts for connections from then on,
one of the others for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.secret import Credentials, find_secret
from memd.errors import QMPError
from memd.places import size_of
from memd.qapi.visit import visit_enum
from memd.qom import OBJECT, ObjectType
from memd.qom.object import Property, Set, attribute
from memd.work import Job

if TYPE_CHECKING:
    import ssl


ENDPOINTS = ("client", "server")

_VERSIONS = ("TLS1.0", "TLS1.1", "TLS1.2", "TLS1.3")
_SPOKEN = ("TLS1.2", "TLS1.3")


class TLSCredentials(Credentials):
    """Certificates and a key, as files in a directory.

    Attributes:
        dir: the directory, or None.
        endpoint: "client" or "server".
        priority: which versions of TLS are spoken, in GnuTLS's notation, or None.
        versions: the versions of TLS that it leaves.
        verify_peer: whether the other end must prove who it is.
        sanity_check: whether the certificates are checked before they are needed.
        passwordid: the id of the secret that the key is encrypted with, or None.
    """

    dir: str | None = None
    endpoint = "client"
    priority: str | None = None
    versions: tuple[str, ...] = _SPOKEN
    verify_peer = True
    sanity_check = True
    passwordid: str | None = None
    _context: ssl.SSLContext | None = None
    # Where they were read from, which counts when they are read anew.
    _files: tuple[str, str, bool, str | None] | None = None

    @property
    def texts_size(self) -> int:
        return size_of([self.dir, self.priority, self.passwordid])

    async def complete(self) -> None:
        """Read the files; see `UserCreatable.complete`."""
        if self.dir is None:
            raise QMPError("Missing 'dir' property value")
        files = self._files or (self.dir, self.endpoint, self.sanity_check, self.passwordid)
        directory, endpoint, check, passwordid = files
        if self._context is None and self.tree.host.roots is not None:
            # OpenSSL opens files by their paths, through whatever links there
            # are; and no client has a use for such an object.
            raise QMPError("with --mem-root, TLS credentials are made on the command line only")
        compat, server = self.tree.compat, endpoint == "server"
        secret = self._secret(passwordid)

        def work() -> ssl.SSLContext:
            from memd.backends.tls_load import Loader

            return Loader(directory, compat, server).load(secret, check=check)

        self._context = await Job(work, on=self.tree.host.waits_on(directory))
        self._files = files

    async def reload(self) -> None:
        """Read the files that it was made of anew, for connections from then on."""
        await self.complete()

    def _secret(self, id: str | None) -> bytes | QMPError:
        """The secret that the key is encrypted with, b"" for none, or the error in its place."""
        if id is None:
            return b""
        try:
            return find_secret(self.tree, id).content
        except QMPError as error:
            return error

    def context(self, *, server: bool) -> ssl.SSLContext:
        """The context for a new connection.

        Args:
            server: whether this end listens.

        Raises:
            QMPError: they are for the other end.
        """
        import ssl

        context = self._context
        side = "server" if server else "client"
        if (
            context is None
            or (context.protocol == ssl.PROTOCOL_TLS_SERVER) is not server
            or self.endpoint != side
        ):
            raise QMPError(f"Expected TLS credentials for a {side} endpoint")
        # Names are looked at by a client that verifies, and by no server.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED if self.verify_peer else ssl.CERT_NONE
        context.check_hostname = self.verify_peer and not server
        context.minimum_version = _version(self.versions[0])
        context.maximum_version = _version(self.versions[-1])
        return context


def _version(name: str) -> ssl.TLSVersion:
    import ssl

    return ssl.TLSVersion.TLSv1_3 if name == "TLS1.3" else ssl.TLSVersion.TLSv1_2


_LONGEST_PRIORITY = 1024
"""Characters: the longest that says something else with each word has some 100."""


def read_priority(text: str) -> tuple[str, ...]:
    """The versions of TLS that a priority string leaves, in GnuTLS's notation.

    `NORMAL` and versions added to it or taken from it, such as
    `NORMAL:-VERS-TLS1.2`, are understood; which ciphers are used is OpenSSL's
    matter. The versions before 1.2 are known, and never spoken (RFC 8996).

    Raises:
        QMPError: it says something else, or leaves nothing.
    """
    refusal = QMPError(f"priority '{text}' is not supported")
    if len(text) > _LONGEST_PRIORITY:
        raise refusal
    first, *further = text.split(":")
    if first != "NORMAL":
        raise refusal
    left = dict.fromkeys(_VERSIONS, True)
    for each in further:
        sign, name = each[:1], each[1:].removeprefix("VERS-")
        if sign not in ("+", "-", "!") or not each[1:].startswith("VERS-"):
            raise refusal
        if name in ("ALL", "TLS-ALL"):
            left = dict.fromkeys(_VERSIONS, sign == "+")
        elif name in left:
            left[name] = sign == "+"
        else:
            raise refusal
    versions = tuple(name for name in _SPOKEN if left[name])
    if not versions:
        raise refusal
    return versions


def _set_priority(credentials: TLSCredentials, priority: str) -> None:
    credentials.versions = read_priority(priority)
    credentials.priority = priority


def _text(name: str, set: Set | None = None) -> Property:
    """A text, or None, which is told as an empty one."""
    return attribute(
        name, "string", get=lambda credentials: getattr(credentials, name) or "", set=set
    )


TLS_CREDS = ObjectType(
    "tls-creds",
    OBJECT,
    abstract=True,
    properties=(
        attribute("verify-peer", "bool"),
        _text("dir"),
        attribute("endpoint", "QCryptoTLSCredsEndpoint", visit_enum(ENDPOINTS)),
        _text("priority", _set_priority),
    ),
)

TLS_CREDS_X509 = ObjectType(
    "tls-creds-x509",
    TLS_CREDS,
    interfaces=("user-creatable",),
    factory=TLSCredentials,
    properties=(attribute("sanity-check", "bool"), _text("passwordid")),
)
