"""X.509 certificates, read as far as checking them before use needs (RFC 5280).

Python's `ssl` says whether a chain of certificates holds, not why QEMU would
refuse one: dates, basic constraints and usages are read here.
"""

from __future__ import annotations

import calendar
from binascii import Error as Base64Error
from binascii import a2b_base64

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"

_SEQUENCE = 0x30
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_VERSION = 0xA0
_EXTENSIONS = 0xA3

_BASIC_CONSTRAINTS = bytes.fromhex("551d13")
_KEY_USAGE = bytes.fromhex("551d0f")
_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")

SERVER_AUTH = bytes.fromhex("2b06010505070301")
CLIENT_AUTH = bytes.fromhex("2b06010505070302")
ANY_PURPOSE = bytes.fromhex("551d2500")
"""Purposes in `Certificate.purposes`: object identifiers, as they are encoded."""

DIGITAL_SIGNATURE = 0x80
KEY_ENCIPHERMENT = 0x20
CERTIFICATE_SIGNING = 0x04
"""Bits of `Certificate.usage`."""

_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("2a864886f70d010901"): "EMAIL",
}


class NoCertificateError(ValueError):
    """A file holds nothing that begins as a certificate does."""


class Base64HeaderError(ValueError):
    """A certificate in PEM is cut short, or is not base64."""


class Certificate:
    """One certificate.

    Attributes:
        issuer: the name of who signed it, as it is encoded.
        name: its own name as text, such as `C=DE,CN=host`.
        subject: its own name, as it is encoded.
        not_before: seconds since 1970 from which it holds.
        not_after: seconds since 1970 until which it holds.
        is_ca: what its basic constraints say, None where there are none.
        usage: what its key may be used for, a set of bits; None where that is
            not said, or not critical.
        purposes: what it may be used for; None where that is not said, or not
            critical.
    """

    def __init__(self, der: bytes) -> None:
        """Read it.

        Raises:
            ValueError: it is not a certificate.
        """
        self.is_ca: bool | None = None
        self.usage: int | None = None
        self.purposes: list[bytes] | None = None
        # TBSCertificate (RFC 5280, section 4.1).
        fields = _members(_members(_content(der, _SEQUENCE))[0][1])
        if fields and fields[0][0] == _VERSION:
            del fields[0]
        if len(fields) < 6:
            raise ValueError("fields are missing")
        _serial, _algorithm, (_, self.issuer), validity, (_, self.subject), _key, *more = fields
        self.name = _text(self.subject)
        (before, after) = _members(validity[1])
        self.not_before = _time(*before)
        self.not_after = _time(*after)
        for tag, content in more:
            if tag == _EXTENSIONS:
                for _tag, extension in _members(_content(content, _SEQUENCE)):
                    self._extend(extension)

    def _extend(self, extension: bytes) -> None:
        members = _members(extension)
        name, value = members[0][1], members[-1][1]
        critical = len(members) == 3 and members[1][1] != b"\0"
        if name == _BASIC_CONSTRAINTS:
            flags = _members(_content(value, _SEQUENCE))
            self.is_ca = bool(flags) and flags[0][0] == 0x01 and flags[0][1] != b"\0"
        elif name == _KEY_USAGE and critical:
            # One byte of unused bits, then the bits.
            bits = _members(value)[0][1][1:2]
            self.usage = bits[0] if bits else 0
        elif name == _EXTENDED_KEY_USAGE and critical:
            self.purposes = [each for _tag, each in _members(_content(value, _SEQUENCE))]


def read_certificates(pem: bytes) -> list[Certificate]:
    """Every certificate of a file in PEM (RFC 7468), in its order.

    Raises:
        NoCertificateError: there is none.
        Base64HeaderError: one is cut short, or is not base64.
        ValueError: one is not what it should be inside.
    """
    _before, *rest = pem.split(_BEGIN)
    if not rest:
        raise NoCertificateError
    found = []
    for each in rest:
        body, end, _after = each.partition(_END)
        try:
            der = a2b_base64(b"".join(body.split()), strict_mode=True) if end else b""
        except Base64Error:
            der = b""
        if not der:
            raise Base64HeaderError
        try:
            found.append(Certificate(der))
        except IndexError:
            raise ValueError("a member is missing") from None
    return found


def _members(content: bytes) -> list[tuple[int, bytes]]:
    """The elements, tag and content each, that a constructed one consists of (X.690)."""
    found = []
    at, end = 0, len(content)
    while at < end:
        tag = content[at]
        if at + 2 > end:
            raise ValueError("an element is cut short")
        length = content[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                raise ValueError("bad length")
            length = int.from_bytes(content[at : at + size], "big")
            at += size
        if at + length > end:
            raise ValueError("an element is cut short")
        found.append((tag, content[at : at + length]))
        at += length
    return found


def _content(data: bytes, tag: int) -> bytes:
    """The content of the first element, which must have this tag."""
    found, content = _members(data)[0]
    if found != tag:
        raise ValueError("not the element that is expected here")
    return content


def _text(name: bytes) -> str:
    """A name as text (RFC 4514, in the order of the certificate)."""
    parts = []
    for _tag, part in _members(name):
        pairs = []
        for _pair_tag, pair in _members(part):
            (_, oid), (_, value) = _members(pair)
            text = value.decode("utf-8", "replace")
            escaped = "".join(f"\\{each}" if each in ',+"\\<>;' else each for each in text)
            pairs.append(f"{_ATTRIBUTES.get(oid, oid.hex())}={escaped}")
        parts.append("+".join(pairs))
    return ",".join(parts)


def _time(tag: int, content: bytes) -> int:
    """Seconds since 1970 of a UTCTime or GeneralizedTime (RFC 5280, section 4.1.2.5)."""
    digits = content.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("20" if digits[:2] < "50" else "19") + digits
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    if len(digits) != 14 or not digits.isdigit():
        raise ValueError("not a time")
    fields = [int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 14, 2))]
    return calendar.timegm((*fields, 0, 0, 0))
