"""Which certificates and keys are taken, and what is said of the others."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from memd.backends.tls_load import FILE_LIMIT, Loader
from memd.compat import Compat
from memd.errors import QMPError
from tests.backends.tls_cases import cases, expected
from tests.tls import Certificates

COMPATS = [Compat.V10_0, Compat.V11_1]


def said(
    folder: Path,
    compat: Compat = Compat.V10_0,
    *,
    server: bool = True,
    check: bool = True,
    secret: bytes | QMPError = b"",
) -> str:
    """Why the directory's files can't be used, or ""."""
    try:
        Loader(str(folder), compat, server).load(secret, check=check)
    except QMPError as error:
        return error.desc
    return ""


@pytest.mark.parametrize("compat", COMPATS)
def test_what_is_said(certificates: Certificates, compat: Compat) -> None:
    wrong = []
    for name, folder, options, text in cases(certificates):
        secret = QMPError("No secret with id 'none'") if "passwordid" in options else b""
        heard = said(
            folder,
            compat,
            server=options.get("endpoint", "server") == "server",
            check=options.get("sanity-check", True),
            secret=secret,
        )
        if heard != (wanted := expected(text, compat, folder)):
            wrong.append(f"{name}\n  {heard}\n  instead of\n  {wanted}")
    assert not wrong, "\n".join(wrong)


def test_directories_in_the_place_of_files(directory: Path) -> None:
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        (directory / name).mkdir()
    reading = f"Cannot load CA cert list {directory}/server-cert.pem: Error reading file"
    assert said(directory) == f"{reading} “{directory}/server-cert.pem”: Is a directory"
    ca = f"{directory}/ca-cert.pem"
    assert said(directory, check=False) == (
        f"Cannot load CA certificate '{ca}': Error while reading file."
    )
    assert said(directory, Compat.V11_1) == (
        f"Cannot load CA cert list {ca}: Error reading file “{ca}”: Is a directory"
    )


@pytest.mark.parametrize("name", ["ca-cert", "server-cert", "server-key", "ca-crl", "dh-params"])
@pytest.mark.parametrize("compat", COMPATS)
def test_a_fifo_is_not_waited_for(
    certificates: Certificates, directory: Path, name: str, compat: Compat
) -> None:
    folder = certificates.folder(
        directory, ca_cert="ca", server_cert="server", server_key="server.key"
    )
    (folder / f"{name}.pem").unlink(missing_ok=True)
    os.mkfifo(folder / f"{name}.pem")
    for check in (True, False):
        assert f"{name}.pem" in said(folder, compat, check=check)


def test_a_file_without_end_is_not_read_to_it(directory: Path) -> None:
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        with open(directory / name, "wb") as file:
            file.truncate(1 << 40)
    assert said(directory, check=False).startswith("Cannot load certificate")
    assert FILE_LIMIT < 1 << 30


def test_the_password_is_not_asked_for_at_the_terminal(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = certificates.folder(
        ca_cert="ca", server_cert="server", server_key=certificates.encrypted_key()
    )

    def opened(*_arguments: object) -> int:
        raise AssertionError("a terminal was opened")

    monkeypatch.setattr("getpass.getpass", opened)
    assert said(folder).endswith("Decryption has failed.")


def test_who_was_revoked_is_not_served(certificates: Certificates) -> None:
    certificates.issue("revoked", by="ca")
    folder = certificates.folder(
        ca_cert="ca",
        server_cert="server",
        server_key="server.key",
        ca_crl=certificates.revocations("revoked"),
    )
    context = Loader(str(folder), Compat.V10_0, True).load(b"", check=True)
    context.verify_mode = ssl.CERT_REQUIRED
    for own, served in (("client", True), ("revoked", False)):
        assert is_accepted(context, certificates.client_context(own)) is served


def test_what_is_not_done(certificates: Certificates) -> None:
    context = Loader(str(certificates.good), Compat.V10_0, True).load(b"", check=True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def is_accepted(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Whether a server takes a client, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True
