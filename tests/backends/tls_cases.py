"""Directories of certificates, good and bad, and what is said of them.

`@` stands for the directory. The differential tests give the same directories
to a QEMU, so that the texts here stay those of QEMU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memd.compat import Compat
from tests.tls import AUTHORITY, FUTURE, LEAF, NOW, PAST, Certificates

_GARBAGE = b"no certificate\n"
_NOT_BASE64 = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"
_NOT_DER = b"-----BEGIN CERTIFICATE-----\nAAAAAAAA\n-----END CERTIFICATE-----\n"
_NOT_A_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
_SHORT_KEY = b"-----BEGIN PRIVATE KEY-----\nAAAA\n"

_BAD_HEADER = "Base64 unexpected header error."
_BAD_TAG = "ASN1 parser: Error in TAG."
_CERT = "@/server-cert.pem"
_PAIR = "'@/server-cert.pem' & key '@/server-key.pem'"
_UNKNOWN = (
    f"Our own certificate {_CERT} failed validation against @/ca-cert.pem: "
    "The certificate hasn't got a known issuer",
    "Cert 'CN=localhost' has no issuer in CA chain",
)
_IS_CA = (
    "The certificate @/{0}-cert.pem basic constraints show a CA, but we need one for a {0}"
).format
_USAGE = "Certificate @/{}-cert.pem usage does not permit {}".format
_PURPOSE = "Certificate @/{0}-cert.pem purpose does not allow use with a TLS {0}".format

Text = str | tuple[str, str]
"""What is said, "" for nothing; by QEMU 10.0 and 11.1, where they differ."""

MISSING: list[tuple[str, Sequence[str], Text]] = [
    # What there is for a server, of ca-cert, server-cert and server-key.
    ("", "", "Unable to access credentials @/ca-cert.pem: No such file or directory"),
    (
        "only the authority",
        ["ca_cert"],
        (
            f"Unable to access credentials {_CERT}: No such file or directory",
            f"Missing server cert {_PAIR}",
        ),
    ),
    (
        "no key",
        ["ca_cert", "server_cert"],
        (
            "Unable to access credentials @/server-key.pem: No such file or directory",
            f"Cert '{_CERT}' without corresponding key '@/server-key.pem'",
        ),
    ),
    (
        "no certificate",
        ["ca_cert", "server_key"],
        (
            f"Unable to access credentials {_CERT}: No such file or directory",
            f"Key '@/server-key.pem' without corresponding cert '{_CERT}'",
        ),
    ),
]

CONTENT: list[tuple[str, dict[str, bytes], bool, Text]] = [
    # What is in files instead, whether it is checked, what is said.
    (
        "the authority is garbage",
        {"ca_cert": _GARBAGE},
        True,
        (
            "Unable to import CA certificate list @/ca-cert.pem",
            "Unable to import certificate @/ca-cert.pem: No certificate was found.",
        ),
    ),
    (
        "the authority is garbage, unchecked",
        {"ca_cert": b""},
        False,
        ("", "Unable to import certificate @/ca-cert.pem: No certificate was found."),
    ),
    *(
        (
            f"the certificate is {what}, {'checked' if check else 'unchecked'}",
            {"server_cert": content},
            check,
            (
                f"Unable to import server certificate {_CERT}: {checked}"
                if check
                else f"Cannot load certificate {_PAIR}: {unchecked}",
                f"Unable to import certificate {_CERT}: {later}",
            ),
        )
        for check in (True, False)
        for what, content, checked, unchecked, later in (
            (
                "garbage",
                _GARBAGE,
                _BAD_HEADER,
                "Base64 decoding error.",
                "No certificate was found.",
            ),
            ("no base64", _NOT_BASE64, _BAD_HEADER, _BAD_HEADER, _BAD_HEADER),
            ("no ASN.1", _NOT_DER, _BAD_TAG, _BAD_TAG, _BAD_TAG),
        )
    ),
    *(
        (
            f"the key is {what}",
            {"server_key": content},
            True,
            (
                f"Cannot load certificate {_PAIR}: {text}",
                "Unable to import private key @/server-key.pem",
            ),
        )
        for what, content, text in (
            ("garbage", _GARBAGE, "The requested data were not available."),
            ("cut short", _SHORT_KEY, "Base64 decoding error."),
            ("no ASN.1", _NOT_A_KEY, _BAD_TAG),
        )
    ),
    (
        "the revocations are garbage",
        {"ca_crl": _GARBAGE},
        True,
        "Cannot load CRL '@/ca-crl.pem': Base64 decoding error.",
    ),
    (
        "the parameters are garbage",
        {"dh_params": _GARBAGE},
        True,
        "Unable to load DH parameters from @/dh-params.pem: Base64 unexpected header error.",
    ),
]

ISSUED: list[tuple[str, dict[str, Any], str, Text]] = [
    # How this end's certificate is made, which end it is, what is said.
    ("good", {}, "server", ""),
    ("expired", {"holds": PAST}, "server", f"The server certificate {_CERT} has expired"),
    ("future", {"holds": FUTURE}, "server", f"The server certificate {_CERT} is not yet active"),
    ("is-ca", {"extensions": "basicConstraints=CA:TRUE"}, "server", _IS_CA("server")),
    ("plain", {"extensions": "basicConstraints=CA:FALSE"}, "server", ""),
    (
        "signs",
        {"extensions": "keyUsage=critical,keyCertSign"},
        "server",
        _USAGE("server", "digital signature"),
    ),
    ("signs-uncritical", {"extensions": "keyUsage=keyCertSign"}, "server", ""),
    (
        "no-encipherment",
        {"extensions": "keyUsage=critical,digitalSignature"},
        "server",
        (_USAGE("server", "key encipherment"), ""),
    ),
    (
        "for-clients",
        {"extensions": "extendedKeyUsage=critical,clientAuth"},
        "server",
        _PURPOSE("server"),
    ),
    ("for-all", {"extensions": "extendedKeyUsage=critical,anyExtendedKeyUsage"}, "server", ""),
    ("stranger", {"by": "other-ca"}, "server", _UNKNOWN),
    ("client-good", {}, "client", ""),
    (
        "client-expired",
        {"holds": PAST},
        "client",
        "The client certificate @/client-cert.pem has expired",
    ),
    ("client-is-ca", {"extensions": "basicConstraints=CA:TRUE"}, "client", _IS_CA("client")),
    (
        "client-for-servers",
        {"extensions": "extendedKeyUsage=critical,serverAuth"},
        "client",
        _PURPOSE("client"),
    ),
    (
        "client-signs",
        {"extensions": "keyUsage=critical,keyCertSign"},
        "client",
        _USAGE("client", "digital signature"),
    ),
]

_SAME_NAME = "/CN=authority"
AUTHORITIES: list[tuple[str, dict[str, Any], Text]] = [
    # How the authority's certificate is made anew, what is said.
    (
        "ca-expired",
        {"holds": PAST, "extensions": AUTHORITY},
        "The CA certificate @/ca-cert.pem has expired",
    ),
    (
        "ca-future",
        {"holds": FUTURE, "extensions": AUTHORITY},
        "The CA certificate @/ca-cert.pem is not yet active",
    ),
    (
        "ca-is-none",
        {"extensions": "basicConstraints=CA:FALSE"},
        "The certificate @/ca-cert.pem basic constraints do not show a CA",
    ),
    (
        "ca-without-constraints",
        {"extensions": "keyUsage=keyCertSign"},
        "The certificate @/ca-cert.pem is missing basic constraints for a CA",
    ),
    (
        "ca-may-not-sign",
        {"extensions": "basicConstraints=CA:TRUE\nkeyUsage=critical,digitalSignature"},
        "Certificate @/ca-cert.pem usage does not permit certificate signing",
    ),
    (
        "ca-may-hardly-sign",
        {"extensions": "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature"},
        f"Our own certificate {_CERT} failed validation against @/ca-cert.pem: "
        "The certificate is not trusted",
    ),
    ("ca-with-another-key", {"extensions": AUTHORITY, "key": "other-ca"}, _UNKNOWN),
]

Case = tuple[str, Path, dict[str, Any], Text]


def cases(made: Certificates) -> list[Case]:
    """Every case: its name, directory, further properties, and what is said."""
    found: list[Case] = []
    whole = {"ca_cert": "ca", "server_cert": "server", "server_key": "server.key"}
    for name, there, text in MISSING:
        found.append((name, made.folder(**{each: whole[each] for each in there}), {}, text))
    for name, content, check, text in CONTENT:
        files: dict[str, str | bytes] = {**whole, **content}
        found.append((name, made.folder(**files), {"sanity-check": check}, text))
    for name, how, role, text in ISSUED:
        made.issue(name, **{"by": "ca", **how})
        pair = {f"{role}_cert": name, f"{role}_key": f"{name}.key"}
        found.append((name, made.folder(ca_cert="ca", **pair), {"endpoint": role}, text))
        if "by" in how or how.get("holds", NOW) != NOW:
            unchecked = {"endpoint": role, "sanity-check": False}
            found.append((f"{name}, unchecked", found[-1][1], unchecked, ""))
    for name, how, text in AUTHORITIES:
        made.issue(name, **{"subject": _SAME_NAME, "key": "ca", **how})
        found.append((name, made.folder(**{**whole, "ca_cert": name}), {}, text))
    found += [*_chains(made), *_further(made, whole)]
    return found


def _chains(made: Certificates) -> list[Case]:
    """With an authority between this end's certificate and the root."""
    made.issue("between", by="ca", subject="/CN=between", extensions=AUTHORITY)
    made.issue("far", by="between", subject="/C=DE/O=Ex, Inc./CN=far", extensions=LEAF)
    pair = {"server_cert": "far", "server_key": "far.key"}
    unknown = _UNKNOWN[0], "Cert 'C=DE,O=Ex\\, Inc.,CN=far' has no issuer in CA chain"
    chain = {**pair, "server_cert": ["far", "between"]}
    both, lower = ["ca", "between"], _UNKNOWN[1].replace("localhost", "between")
    return [
        ("between missing", made.folder(ca_cert="ca", **pair), {}, unknown),
        ("between with the authority", made.folder(ca_cert=both, **pair), {}, ""),
        ("between alone", made.folder(ca_cert="between", **pair), {}, ("", lower)),
        ("between in the chain", made.folder(ca_cert="ca", **chain), {}, (_UNKNOWN[0], "")),
    ]


def _further(made: Certificates, whole: dict[str, str]) -> list[Case]:
    mixed = made.folder(**{**whole, "server_key": "client.key"})
    mismatch = "{} {}: The certificate and the given key do not match.".format
    secret = {"passwordid": "none"}
    late = made.folder(ca_cert="ca", server_cert="expired", server_key="expired.key")
    expired = f"The server certificate {_CERT} has expired"
    locked = made.folder(**{**whole, "server_key": made.encrypted_key()})
    half = made.folder(ca_cert="ca", client_cert="client")
    other = made.folder(**{**whole, "ca_cert": ["other-ca", "ca"]})
    outdated = made.folder(**{**whole, "ca_cert": ["ca", "ca-expired"]})
    good = made.good
    return [
        (
            "another's key",
            mixed,
            {},
            (mismatch("Cannot load certificate", _PAIR), mismatch("Cannot set certificate", _PAIR)),
        ),
        ("no such secret", good, secret, "No secret with id 'none'"),
        ("no such secret, late", late, secret, (expired, "No secret with id 'none'")),
        (
            "a locked key",
            locked,
            {},
            (
                f"Cannot load certificate {_PAIR}: Decryption has failed.",
                "Unable to import private key @/server-key.pem",
            ),
        ),
        ("a client needs no certificate", good, {"endpoint": "client"}, ""),
        (
            "half a client",
            half,
            {"endpoint": "client"},
            ("", "Cert '@/client-cert.pem' without corresponding key '@/client-key.pem'"),
        ),
        ("two authorities", other, {}, ""),
        (
            "one authority too old",
            outdated,
            {},
            ("The CA certificate @/ca-cert.pem has expired", ""),
        ),
    ]


def expected(text: Text, compat: Compat, folder: Path) -> str:
    """What a version says of a directory."""
    if not isinstance(text, str):
        text = text[0] if compat is Compat.V10_0 else text[1]
    return text.replace("@", str(folder))
