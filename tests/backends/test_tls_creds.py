"""The object `tls-creds-x509`: its properties, and what connections are made with."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from memd.backends.tls_creds import TLSCredentials, read_priority
from memd.errors import QMPError
from memd.hostmem.paths import Roots
from memd.qom import Tree
from memd.work import run_here
from tests.backends.doing import add, delete
from tests.tls import Certificates


def add_credentials(tree: Tree, **options: Any) -> TLSCredentials:
    """object-add of `tls0`; underscores in options stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    run_here(tree.objects.create({"qom-type": "tls-creds-x509", "id": "tls0", **named}))
    made = tree.objects.get("tls0")
    assert isinstance(made, TLSCredentials)
    return made


def test_as_they_are_by_default(tree: Tree, certificates: Certificates) -> None:
    made = add_credentials(tree, dir=str(certificates.good_client))
    shown = {name: made.get_property(name) for name in made.qom_type.all_properties}
    assert shown == {
        "type": "tls-creds-x509",
        "dir": str(certificates.good_client),
        "endpoint": "client",
        "priority": "",
        "verify-peer": True,
        "sanity-check": True,
        "passwordid": "",
    }
    assert made.qom_type.is_a("tls-creds")
    assert delete(tree, "tls0") == {}


def test_a_directory_is_needed(tree: Tree) -> None:
    with pytest.raises(QMPError, match=r"^Missing 'dir' property value$"):
        add_credentials(tree)
    assert tree.objects.children == {}


def test_what_fails_leaves_the_id_free(tree: Tree, certificates: Certificates) -> None:
    for nowhere in ("/nowhere", "/nowhere/a\0b"):
        with pytest.raises(QMPError) as caught:
            add_credentials(tree, dir=nowhere)
        assert caught.value.desc == (
            f"Unable to access credentials {nowhere}/ca-cert.pem: No such file or directory"
        )
    add_credentials(tree, dir=str(certificates.good_client))


def test_secrets_are_not_had(tree: Tree, certificates: Certificates) -> None:
    add(tree, "ram", "m0", size=4096)
    for id, text in (("s0", "No secret with id 's0'"), ("m0", "Object with id 'm0' is not a sec")):
        with pytest.raises(QMPError, match=f"^{text}"):
            add_credentials(tree, dir=str(certificates.good_client), passwordid=id)


def test_what_a_server_is_made_with(tree: Tree, certificates: Certificates) -> None:
    made = add_credentials(tree, dir=str(certificates.good), endpoint="server")
    context = made.context(server=True)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.check_hostname
    made.set_property("verify-peer", False)
    assert made.context(server=True).verify_mode == ssl.CERT_NONE
    made.set_property("priority", "NORMAL:-VERS-TLS1.3")
    assert made.context(server=True).maximum_version == ssl.TLSVersion.TLSv1_2
    made.set_property("priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3")
    assert made.context(server=True).minimum_version == ssl.TLSVersion.TLSv1_3
    made.set_property("priority", "NORMAL")
    context = made.context(server=True)
    assert (context.minimum_version, context.maximum_version) == (
        ssl.TLSVersion.TLSv1_2,
        ssl.TLSVersion.TLSv1_3,
    )


def test_what_a_client_is_made_with(tree: Tree, certificates: Certificates) -> None:
    made = add_credentials(tree, dir=str(certificates.good_client))
    context = made.context(server=False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    made.set_property("verify-peer", False)
    context = made.context(server=False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_files_that_are_read_anew(tree: Tree, certificates: Certificates) -> None:
    """They are those that it was made of: clients may have set other ones since."""
    made = add_credentials(tree, dir=str(certificates.good), endpoint="server")
    first = made.context(server=True)
    for name, value in (("dir", "/nowhere"), ("passwordid", "nobody"), ("endpoint", "client")):
        made.set_property(name, value)
    run_here(made.complete())
    made.set_property("endpoint", "server")
    assert made.context(server=True) is not first
    assert made.get_property("dir") == "/nowhere"


def test_credentials_for_the_other_end(tree: Tree, certificates: Certificates) -> None:
    made = add_credentials(tree, dir=str(certificates.good), endpoint="server")
    refusal = "^Expected TLS credentials for a {} endpoint$"
    with pytest.raises(QMPError, match=refusal.format("client")):
        made.context(server=False)
    made.set_property("endpoint", "client")
    for server, side in ((True, "server"), (False, "client")):
        with pytest.raises(QMPError, match=refusal.format(side)):
            made.context(server=server)
    made.set_property("endpoint", "server")
    made.context(server=True)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("endpoint", "middle", "Parameter 'endpoint' does not accept value 'middle'"),
        ("verify-peer", "on", "Invalid parameter type for 'verify-peer', expected: boolean"),
        ("dir", 3, "Invalid parameter type for 'dir', expected: string"),
        ("priority", "SECURE256", "priority 'SECURE256' is not supported"),
        ("loaded", True, "Property 'tls-creds-x509.loaded' not found"),
    ],
)
def test_changes_that_are_refused(
    tree: Tree, certificates: Certificates, name: str, value: Any, text: str
) -> None:
    made = add_credentials(tree, dir=str(certificates.good), endpoint="server")
    with pytest.raises(QMPError) as refused:
        made.set_property(name, value)
    assert refused.value.desc == text
    assert made.priority is None


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("NORMAL", ("TLS1.2", "TLS1.3")),
        ("NORMAL:-VERS-TLS1.2", ("TLS1.3",)),
        ("NORMAL:!VERS-TLS1.3", ("TLS1.2",)),
        ("NORMAL:-VERS-TLS1.0:-VERS-TLS1.1", ("TLS1.2", "TLS1.3")),
        ("NORMAL:-VERS-TLS-ALL:+VERS-TLS1.2", ("TLS1.2",)),
    ],
)
def test_priorities(text: str, versions: tuple[str, ...]) -> None:
    assert read_priority(text) == versions


@pytest.mark.parametrize(
    "text",
    [
        *("", "BOGUS", "SECURE256", "@SYSTEM", "NORMAL:", "NORMAL:+AES-256-GCM", "normal"),
        *("NORMAL:-VERS-ALL", "NORMAL:-VERS-ALL:+VERS-TLS1.0", "NORMAL:VERS-TLS1.2"),
        *("NORMAL:-VERS-TLS1.4", "NORMAL:-TLS1.2", "NORMAL" + 80 * ":+VERS-TLS1.3"),
    ],
)
def test_priorities_that_are_not_understood(text: str) -> None:
    with pytest.raises(QMPError, match=r"is not supported$"):
        read_priority(text)


def test_clients_make_none_where_their_files_are_confined(
    tree: Tree, certificates: Certificates
) -> None:
    """What is there is read anew all the same."""
    made = add_credentials(tree, dir=str(certificates.good_client))
    tree.host.roots = Roots()
    with pytest.raises(QMPError, match=r"^with --mem-root, TLS credentials are made on the comm"):
        run_here(
            tree.objects.create(
                {"qom-type": "tls-creds-x509", "id": "tls1", "dir": str(certificates.good_client)},
            )
        )
    run_here(made.complete())
    assert delete(tree, "tls0") == {}
