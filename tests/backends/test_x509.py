"""Certificates as they are read, and what is not a certificate."""

from __future__ import annotations

import base64
import calendar
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memd.backends import x509
from memd.backends.x509 import Base64HeaderError, NoCertificateError, read_certificates
from tests.tls import LEAF, Certificates


def pem(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    text = "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
    return text.encode()


def der(certificates: Certificates, name: str) -> bytes:
    return base64.b64decode(b"".join(certificates.read(name).splitlines()[1:-1]))


def seconds(*fields: int) -> int:
    return calendar.timegm((*fields, 0, 0, 0, 0, 0, 0))


def test_an_authority_and_who_it_vouches_for(certificates: Certificates) -> None:
    both = certificates.read("ca") + b"\nin between\n" + certificates.read("server")
    authority, server = read_certificates(both)
    assert (authority.name, authority.is_ca) == ("CN=authority", True)
    assert authority.usage == x509.CERTIFICATE_SIGNING | 0x02
    assert authority.purposes is None
    assert authority.issuer == authority.subject == server.issuer
    assert (server.name, server.is_ca) == ("CN=localhost", False)
    assert server.usage == x509.DIGITAL_SIGNATURE | x509.KEY_ENCIPHERMENT
    # Not critical, so it does not bind.
    assert server.purposes is None
    # Two ways to write a year: 2020 has two digits, 2060 four.
    assert server.not_before == seconds(2020, 1, 1)
    assert server.not_after == seconds(2060, 1, 1)


def test_purposes_that_bind(certificates: Certificates) -> None:
    extensions = f"{LEAF}\nextendedKeyUsage=critical,serverAuth,clientAuth"
    certificates.issue("both-purposes", by="ca", extensions=extensions)
    (read,) = read_certificates(certificates.read("both-purposes"))
    assert read.purposes == [x509.SERVER_AUTH, x509.CLIENT_AUTH]


def test_names_are_escaped(certificates: Certificates) -> None:
    subject = '/C=DE/O=A+B, "C"/CN=x;y'.replace("+", "\\+")
    certificates.issue("escaped", by="ca", subject=subject)
    (read,) = read_certificates(certificates.read("escaped"))
    assert read.name == 'C=DE,O=A\\+B\\, \\"C\\",CN=x\\;y'


def test_what_is_none(certificates: Certificates) -> None:
    whole = certificates.read("server")
    for content in (b"", b"text\n", certificates.read("server.key")):
        with pytest.raises(NoCertificateError):
            read_certificates(content)
    for content in (whole[:200], whole[:-5], whole.replace(b"M", b"!", 1), pem(b"")):
        with pytest.raises(Base64HeaderError):
            read_certificates(content)
    for content in (b"\0", b"\x30\x80", b"\x30\x03\x02\x01\x01", der(certificates, "server")[:-9]):
        with pytest.raises(ValueError, match=r"."):
            read_certificates(pem(content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_is_found_or_harmless(certificates: Certificates, data: st.DataObject) -> None:
    damaged = bytearray(der(certificates, "server"))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    for content in (damaged, damaged[:end]):
        try:
            read_certificates(pem(bytes(content)))
        except ValueError:
            pass
