"""Certificates and keys from files, checked as QEMU checks them, into an `ssl` context.

Texts and their order were observed on QEMU 10.0.2 and 11.1.3. What only
GnuTLS, which QEMU uses, could word is OpenSSL's here; `docs/deviations.md`
says where.
"""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Iterable

from memd.backends import x509
from memd.backends.x509 import Certificate
from memd.compat import Compat
from memd.errors import QMPError, not_read, refusing
from memd.hostmem.paths import encode_path

FILE_LIMIT = 4 * 1024 * 1024
"""Bytes of a file with certificates or a key; all of Debian's CA certificates
together are 220 KiB."""

_UNKNOWN_ISSUER = (2, 7, 18, 19, 20, 21)
_NOT_TRUSTED = (24, 32, 79)
"""OpenSSL's verify codes (X509_STORE_CTX_get_error(3)), by what GnuTLS says of
them; others speak of what only matters once somebody is connected."""

_MISMATCH = "The certificate and the given key do not match."


class Loader:
    """Reads a directory's files: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`.

    For a client `client-cert.pem` and `client-key.pem`, which may be missing;
    `ca-crl.pem`, with certificates that were revoked, and a server's
    `dh-params.pem`, where there are any.

    Args:
        directory: where the files are.
        compat: whose texts.
        server: whether they are for the end that listens.
    """

    def __init__(self, directory: str, compat: Compat, server: bool) -> None:
        self._server = server
        self._role = "server" if server else "client"
        self._old = compat is Compat.V10_0
        self._ca = f"{directory}/ca-cert.pem"
        self._crl = f"{directory}/ca-crl.pem"
        self._dh = f"{directory}/dh-params.pem"
        self._cert = f"{directory}/{self._role}-cert.pem"
        self._key = f"{directory}/{self._role}-key.pem"
        self._pair = encode_path(self._cert), encode_path(self._key)
        # With none, not even an empty one, OpenSSL would ask for one at the terminal.
        self._secret = b""

    def load(self, secret: bytes | QMPError, *, check: bool) -> ssl.SSLContext:
        """A context with them.

        Args:
            secret: what the key is encrypted with, nothing where it is not, or
                why that is not available.
            check: whether the certificates are checked before they are needed.

        Raises:
            QMPError: they can't be used.
        """
        paired = self._find_files()
        if self._old:
            authorities, own = self._read_old(paired, check)
            if check:
                self._check(own, authorities)
            self._take(secret)
        else:
            authorities = self._certificates(self._ca)
            own = self._certificates(self._cert) if paired else []
            self._take(secret)
        context = self._context(authorities, paired)
        if check and not self._old:
            self._check(own, authorities)
        if check and own:
            self._check_signatures(own[0])
        return context

    def _take(self, secret: bytes | QMPError) -> None:
        if isinstance(secret, QMPError):
            raise secret
        self._secret = secret

    def _find_files(self) -> bool:
        """Whether there is a certificate and its key; raises `QMPError` for half of it."""
        _stat(self._ca)
        if self._server and self._old:
            _stat(self._cert)
            _stat(self._key)
            return True
        cert, key = os.path.exists(encode_path(self._cert)), os.path.exists(encode_path(self._key))
        if self._old or (cert and key):
            return cert and key
        if cert:
            raise QMPError(f"Cert '{self._cert}' without corresponding key '{self._key}'")
        if key:
            raise QMPError(f"Key '{self._key}' without corresponding cert '{self._cert}'")
        if self._server:
            raise QMPError(f"Missing server cert '{self._cert}' & key '{self._key}'")
        return False

    # Reading

    def _read_old(self, paired: bool, check: bool) -> tuple[list[Certificate], list[Certificate]]:
        """The CA's certificates and this end's, which QEMU 10.0 reads for the check only."""
        own: list[Certificate] = []
        if check and paired:
            try:
                own = x509.read_certificates(_read_list(self._cert))
            except ValueError as error:
                # No certificate at all is a bad header, too.
                reason = _reason(error, none="Base64 unexpected header error.")
                raise QMPError(
                    f"Unable to import {self._role} certificate {self._cert}: {reason}"
                ) from None
        try:
            return x509.read_certificates(_read_list(self._ca) if check else self._read_ca()), own
        except ValueError:
            if check:
                raise QMPError(f"Unable to import CA certificate list {self._ca}") from None
            return [], own

    def _read_ca(self) -> bytes:
        try:
            return _read(self._ca)
        except OSError:
            raise QMPError(
                f"Cannot load CA certificate '{self._ca}': Error while reading file."
            ) from None

    def _certificates(self, path: str) -> list[Certificate]:
        try:
            return x509.read_certificates(_read_list(path))
        except ValueError as error:
            reason = _reason(error, none="No certificate was found.")
            raise QMPError(f"Unable to import certificate {path}: {reason}") from None

    def _context(self, authorities: list[Certificate], paired: bool) -> ssl.SSLContext:
        context = _new_context(server=self._server)
        if authorities:
            try:
                context.load_verify_locations(encode_path(self._ca))
            except OSError as error:
                raise QMPError(
                    f"Cannot load CA certificate '{self._ca}': {_openssl(error)}"
                ) from None
        if os.path.exists(encode_path(self._crl)):
            self._load_revocations(context)
        if paired:
            self._load_pair(context)
        if self._server and os.path.exists(encode_path(self._dh)):
            try:
                _read(self._dh)
                context.load_dh_params(os.fsdecode(encode_path(self._dh)))
            except OSError:
                raise QMPError(
                    f"Unable to load DH parameters from {self._dh}: Base64 unexpected header error."
                ) from None
        return context

    def _load_revocations(self, context: ssl.SSLContext) -> None:
        try:
            _read(self._crl)
            context.load_verify_locations(encode_path(self._crl))
        except OSError:
            raise QMPError(f"Cannot load CRL '{self._crl}': Base64 decoding error.") from None
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def _load_pair(self, context: ssl.SSLContext) -> None:
        if not self._old:
            self._load_pair_new(context)
            return
        what = f"Cannot load certificate '{self._cert}' & key '{self._key}':"
        try:
            key, cert = _read(self._key), _read(self._cert)
        except OSError:
            raise QMPError(f"{what} Error while reading file.") from None
        try:
            context.load_cert_chain(*self._pair, self._secret)
        except OSError as error:
            raise QMPError(f"{what} {_pair_reason(error, cert, key)}") from None

    def _load_pair_new(self, context: ssl.SSLContext) -> None:
        try:
            _read(self._key)
        except OSError as error:
            raise QMPError(
                f"Cannot load private key {self._key}: {not_read(self._key, error)}"
            ) from None
        try:
            context.load_cert_chain(*self._pair, self._secret)
        except ssl.SSLError as error:
            if not _is_mismatch(error):
                raise QMPError(f"Unable to import private key {self._key}") from None
            raise QMPError(
                f"Cannot set certificate '{self._cert}' & key '{self._key}': {_MISMATCH}"
            ) from None

    # Checking

    def _check(self, own: list[Certificate], authorities: list[Certificate]) -> None:
        if own:
            self._check_own(own[0])
        if self._old:
            for authority in authorities:
                self._check_authority(authority, self._ca)
            if own and _find_issuer(own[0], authorities) is None:
                raise self._unknown_issuer(own[0])
        elif own:
            self._check_way_up(own[0], own[1:], authorities)

    def _check_way_up(
        self, leaf: Certificate, chain: list[Certificate], authorities: list[Certificate]
    ) -> None:
        """Check who signed the certificate, who signed theirs, up to the root."""
        for each in chain:
            self._check_authority(each, self._cert)
        at = leaf
        known = [*chain, *authorities]
        # No longer than there are certificates: they may go round in circles.
        for _ in range(len(known) + 1):
            issuer = _find_issuer(at, known)
            if issuer is None:
                raise self._unknown_issuer(at)
            if issuer not in chain:
                self._check_authority(issuer, self._ca)
            if issuer.issuer == issuer.subject:
                return
            at = issuer

    def _check_own(self, own: Certificate) -> None:
        path = self._cert
        _check_dates(own, self._role, path)
        if own.is_ca:
            raise QMPError(
                f"The certificate {path} basic constraints show a CA, "
                f"but we need one for a {self._role}"
            )
        if own.usage is not None:
            if not own.usage & x509.DIGITAL_SIGNATURE:
                raise QMPError(f"Certificate {path} usage does not permit digital signature")
            if self._old and not own.usage & x509.KEY_ENCIPHERMENT:
                raise QMPError(f"Certificate {path} usage does not permit key encipherment")
        purpose = x509.SERVER_AUTH if self._server else x509.CLIENT_AUTH
        if own.purposes is not None and not {purpose, x509.ANY_PURPOSE} & set(own.purposes):
            raise QMPError(f"Certificate {path} purpose does not allow use with a TLS {self._role}")

    def _check_authority(self, authority: Certificate, path: str) -> None:
        _check_dates(authority, "CA", path)
        if authority.is_ca is None:
            raise QMPError(f"The certificate {path} is missing basic constraints for a CA")
        if not authority.is_ca:
            raise QMPError(f"The certificate {path} basic constraints do not show a CA")
        if authority.usage is not None and not authority.usage & x509.CERTIFICATE_SIGNING:
            raise QMPError(f"Certificate {path} usage does not permit certificate signing")

    def _check_signatures(self, own: Certificate) -> None:
        """Have OpenSSL verify this end's certificate."""
        code = self._verify_pair()
        if code in _UNKNOWN_ISSUER:
            raise self._unknown_issuer(own)
        if code in _NOT_TRUSTED:
            raise self._not_valid("The certificate is not trusted")

    def _verify_pair(self) -> int:
        """OpenSSL's verify code of the certificate in a handshake with itself, 0 for good."""
        ends = []
        for side in (True, False):
            context = _new_context(server=side)
            context.load_cert_chain(*self._pair, self._secret)
            # The end under test shows its certificate, the other one verifies it.
            if side is self._server:
                context.verify_mode = ssl.CERT_NONE
            else:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(encode_path(self._ca))
            ends.append(context)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        pair = (
            ends[0].wrap_bio(to_server, to_client, server_side=True),
            ends[1].wrap_bio(to_client, to_server),
        )
        # A handshake goes back and forth no more than three times.
        for _ in range(6):
            for end in pair:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                except ssl.SSLCertVerificationError as error:
                    return error.verify_code
                except ssl.SSLError:
                    return 0
        return 0

    def _unknown_issuer(self, of: Certificate) -> QMPError:
        if self._old:
            return self._not_valid("The certificate hasn't got a known issuer")
        return QMPError(f"Cert '{of.name}' has no issuer in CA chain")

    def _not_valid(self, reason: str) -> QMPError:
        return QMPError(
            f"Our own certificate {self._cert} failed validation against {self._ca}: {reason}"
        )


def _new_context(*, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Whatever stands in the CA's file is trusted, roots or not, as by GnuTLS.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _find_issuer(of: Certificate, known: Iterable[Certificate]) -> Certificate | None:
    return next((each for each in known if each.subject == of.issuer), None)


def _check_dates(certificate: Certificate, role: str, path: str) -> None:
    now = time.time()
    if certificate.not_after < now:
        raise QMPError(f"The {role} certificate {path} has expired")
    if certificate.not_before > now:
        raise QMPError(f"The {role} certificate {path} is not yet active")


def _stat(path: str) -> None:
    with refusing(f"Unable to access credentials {path}"):
        os.stat(encode_path(path))


def _read_list(path: str) -> bytes:
    try:
        return _read(path)
    except OSError as error:
        raise QMPError(f"Cannot load CA cert list {path}: {not_read(path, error)}") from None


def _read(path: str) -> bytes:
    """A file's content; never waits for somebody to write to a FIFO."""
    fd = os.open(encode_path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "Not a regular file")
        return file.read(FILE_LIMIT)


def _reason(error: ValueError, *, none: str) -> str:
    """How GnuTLS words why a certificate can't be read."""
    if isinstance(error, x509.NoCertificateError):
        return none
    if isinstance(error, x509.Base64HeaderError):
        return "Base64 unexpected header error."
    return "ASN1 parser: Error in TAG."


def _is_mismatch(error: OSError) -> bool:
    return getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"


def _pair_reason(error: OSError, cert: bytes, key: bytes) -> str:
    """How GnuTLS words why a certificate and its key can't be used; the key comes first."""
    if _is_mismatch(error):
        return _MISMATCH
    if b"-----BEGIN " not in key:
        return "The requested data were not available."
    if b"-----END " not in key:
        return "Base64 decoding error."
    if b"ENCRYPTED" in key:
        return "Decryption has failed."
    try:
        x509.read_certificates(cert)
    except ValueError as bad:
        return _reason(bad, none="Base64 decoding error.")
    reason = getattr(error, "reason", None)
    # What is not a key inside leaves OpenSSL without a word of its own.
    if reason is None or reason in ("PEM_LIB", "ASN1_LIB", "UNSUPPORTED"):
        return "ASN1 parser: Error in TAG."
    return _openssl(error)


def _openssl(error: OSError) -> str:
    """OpenSSL's word for what it refuses, such as `ee key too small.`."""
    reason = getattr(error, "reason", None) or error.strerror or "unknown error"
    return f"{str(reason).replace('_', ' ').lower()}."
