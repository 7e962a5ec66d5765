"""`secret`: a password or key that other objects are given by id.

Management software hands its QEMU a key at the start, whether anything needs
it or not; here the private key of TLS credentials may be encrypted with one.
Properties and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.places import size_of
from memd.qapi.visit import visit_enum, visit_str
from memd.qom import NOBODY, OBJECT, Description, ObjectType, Property, Tree, UserCreatable
from memd.work import Job

if TYPE_CHECKING:
    from memd.hostmem.host import Host

FORMATS = ("raw", "base64")

_KEY_LENGTH = 32
"""Bytes of a key that a secret can be encrypted with."""

MOST = 1 << 20
"""Bytes of a secret, and of a file that may hold one: far more than any key has."""

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_BASE64 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n")


class Credentials(UserCreatable):
    """An object whose files are read once; most properties count for nothing later."""

    tree: Tree
    keeps_texts = True

    def restoring(self, described: Description) -> JSONObject:
        """The options that it was made with, whatever was set later."""
        options: JSONObject = described["options"]
        return {name: value for name, value in options.items() if name not in ("qom-type", "id")}

    def relink(self, described: Description) -> None:
        """Show what was set later; see `UserCreatable.relink`."""
        # What the command line says of whom to trust, no client changes for good.
        if described["owner"] is not NOBODY:
            self.set_properties(described["properties"])


def is_credential(type_name: str) -> bool:
    """Whether objects of that type are what monitors may need, and so come before them."""
    return type_name.startswith(("tls-creds", "secret"))


class Secret(Credentials):
    """A secret.

    Attributes:
        content: the secret itself; empty before the object is whole.
    """

    content = b""
    _is_read = False

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        self._values: dict[str, str] = {}

    def value(self, name: str) -> str:
        """A property's value."""
        return self._values.get(name, "raw" if name == "format" else "")

    def set_value(self, name: str, value: str) -> None:
        """Set a property; once the object is whole that changes nothing.

        Raises:
            QMPError: it is longer than any secret.
        """
        if len(value) > MOST:
            raise QMPError(f"Parameter '{name}' exceeds {MOST} bytes")
        self._values[name] = value

    @property
    def texts_size(self) -> int:
        """See `UserCreatable.texts_size`; what its file may have counts until it is read."""
        of_file = MOST if "file" in self._values and not self._is_read else 0
        return len(self.content) + of_file + size_of(self._values)

    async def complete(self) -> None:
        """Read it; see `UserCreatable.complete`."""
        values = self._values
        if "file" in values and "data" in values:
            raise QMPError("'file' and 'data' are mutually exclusive")
        if "file" in values:
            host = self.tree.host
            path = values["file"]
            content = await Job(lambda: _read(host, path), on=host.waits_on(path))
        elif "data" in values:
            # Arguments of a command line may have bytes that are not text.
            content = values["data"].encode("utf-8", "surrogateescape")
        else:
            raise QMPError("Either 'file' or 'data' must be provided")
        key = self._values.get("keyid")
        if key is not None:
            found = find_secret(self.tree, key)
            if len(found.content) != _KEY_LENGTH:
                raise QMPError(f"Key should be {_KEY_LENGTH} bytes in length")
            raise QMPError("memd has no means to decrypt a secret: 'keyid' is not supported")
        self.content = _decode(content) if self.value("format") == "base64" else content
        self._is_read = True
        if self.texts is not None:
            self.texts.resize(self.texts_size)


def find_secret(tree: Tree, id: str) -> Secret:
    """The secret of that id; raises `QMPError` where there is none."""
    found = tree.objects.get(id)
    if found is None:
        raise QMPError(f"No secret with id '{id}'")
    if not isinstance(found, Secret):
        raise QMPError(f"Object with id '{id}' is not a secret")
    return found


def _read(host: Host, path: str) -> bytes:
    """The content of a file; runs in a worker thread."""
    from memd.hostmem.paths import encode_path

    raw, doing = encode_path(path), "Failed to open file"
    try:
        fd = host.open(raw, _READ)
        try:
            doing = "Error reading file"
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.read(fd, 1)
                raise QMPError(f"Unable to read {path}: it is not a regular file")
            content = os.read(fd, MOST + 1)
        finally:
            os.close(fd)
    except OSError as error:
        shown, reason = raw.decode("utf-8", "replace"), error.strerror
        raise QMPError(f"Unable to read {path}: {doing} \u201c{shown}\u201d: {reason}") from None
    if len(content) > MOST:
        raise QMPError(f"Unable to read {path}: it is larger than {MOST} bytes")
    return content


def _decode(text: bytes) -> bytes:
    from binascii import Error, a2b_base64

    with suppress(Error):
        if _BASE64.issuperset(text):
            # Padding may be missing.
            return a2b_base64(text + b"===")
    raise QMPError("Base64 data contains invalid characters")


def _property(name: str, type: str = "string") -> Property:
    return Property(
        name,
        type,
        visit=visit_enum(FORMATS) if name == "format" else visit_str,
        get=lambda secret: secret.value(name),
        set=lambda secret, value: secret.set_value(name, value),
    )


SECRET_COMMON = ObjectType(
    "secret_common",
    OBJECT,
    abstract=True,
    interfaces=("user-creatable",),
    properties=(
        _property("iv"),
        _property("keyid"),
        _property("format", "QCryptoSecretFormat"),
    ),
)
SECRET = ObjectType(
    "secret",
    SECRET_COMMON,
    factory=Secret,
    properties=(_property("file"), _property("data")),
)
