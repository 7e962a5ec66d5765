from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from memd.backends.secret import Secret, find_secret
from memd.backends.tls_creds import TLSCredentials
from memd.errors import QMPError
from memd.hostmem.paths import Roots
from memd.qom import Tree
from memd.work import run_here
from tests.backends.doing import add, delete
from tests.commands.fakes import Console
from tests.stepping import as_user
from tests.tls import Certificates
from tests.users import STRANGER


def add_secret(tree: Tree, id: str = "s0", **options: Any) -> Secret:
    run_here(tree.objects.create({"qom-type": "secret", "id": id, **options}))
    return find_secret(tree, id)


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ({"data": "word"}, b"word"),
        ({"data": ""}, b""),
        ({"data": "wörd"}, "wörd".encode()),
        ({"data": "\udcff"}, b"\xff"),
        ({"data": "aGk=", "format": "base64"}, b"hi"),
        ({"data": "aGk", "format": "base64"}, b"hi"),
        ({"data": "aGk=", "format": "raw", "iv": "x"}, b"aGk="),
    ],
)
def test_content(tree: Tree, options: dict[str, str], content: bytes) -> None:
    made = add_secret(tree, **options)
    assert made.content == content
    assert made.get_property("data") == options["data"]
    assert made.get_property("format") == options.get("format", "raw")
    assert (made.get_property("file"), made.get_property("keyid")) == ("", "")
    # Too late: nothing follows from it.
    made.set_property("data", "other")
    assert made.content == content
    assert delete(tree, "s0") == {}


def test_from_a_file(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\x00\xff")
    made = add_secret(tree, file=str(path))
    assert made.content == b"\x00\xff"
    assert made.qom_type.is_a("secret_common")


def test_bytes_that_are_not_base64(tree: Tree) -> None:
    assert refusal(tree, data="\udcff", format="base64") == (
        "Base64 data contains invalid characters"
    )


def refusal(tree: Tree, **options: Any) -> str:
    with pytest.raises(QMPError) as caught:
        add_secret(tree, **options)
    assert tree.objects.children.keys() <= {"s0", "m0"}
    return caught.value.desc


def test_refusals(tree: Tree, tmp_path: Path) -> None:
    assert refusal(tree, id="x") == "Either 'file' or 'data' must be provided"
    assert refusal(tree, id="x", data="a", file="b") == "'file' and 'data' are mutually exclusive"
    assert refusal(tree, id="x", data="!", format="base64") == (
        "Base64 data contains invalid characters"
    )
    assert refusal(tree, id="x", data="a", format="b") == (
        "Parameter 'format' does not accept value 'b'"
    )
    nowhere = tmp_path / "nowhere"
    assert refusal(tree, id="x", file=str(nowhere)) == (
        f"Unable to read {nowhere}: Failed to open file “{nowhere}”: No such file or directory"
    )
    assert refusal(tree, id="x", file="/nowhere/a\0b") == (
        "Unable to read /nowhere/a\0b: Failed to open file “/nowhere/a\ufffd\ufffdb”:"
        " No such file or directory"
    )
    assert refusal(tree, id="x", file=str(tmp_path)) == (
        f"Unable to read {tmp_path}: Error reading file “{tmp_path}”: Is a directory"
    )
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert refusal(tree, id="x", file=str(fifo)).endswith("it is not a regular file")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2 << 20)
    assert refusal(tree, id="x", file=str(large)).endswith("it is larger than 1048576 bytes")


def test_no_secret_is_decrypted(tree: Tree) -> None:
    add_secret(tree, data="short")
    add(tree, "ram", "m0", size=4096)
    for keyid, text in (
        ("nope", "No secret with id 'nope'"),
        ("m0", "Object with id 'm0' is not a secret"),
        ("s0", "Key should be 32 bytes in length"),
    ):
        assert refusal(tree, id="x", data="aGk=", keyid=keyid) == text
    delete(tree, "s0")
    add_secret(tree, data="k" * 32)
    assert refusal(tree, id="x", data="aGk=", keyid="s0").endswith("'keyid' is not supported")


def test_a_key_may_be_encrypted_with_one(tree: Tree, certificates: Certificates) -> None:
    folder = certificates.folder(
        ca_cert="ca", server_cert="server", server_key=certificates.encrypted_key()
    )
    add_secret(tree, "right", data="x")
    add_secret(tree, "wrong", data="y")
    common = {"qom-type": "tls-creds-x509", "endpoint": "server", "dir": str(folder)}
    with pytest.raises(QMPError):
        run_here(tree.objects.create({**common, "id": "tls0", "passwordid": "wrong"}))
    run_here(tree.objects.create({**common, "id": "tls0", "passwordid": "right"}))
    made = tree.objects.get("tls0")
    assert isinstance(made, TLSCredentials)
    assert made.context(server=True) is not None


def test_its_file_is_below_the_roots(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for path in (tmp_path / "root/in", tmp_path / "out"):
        path.write_text("word")
    tree.host.roots = Roots()
    tree.host.roots.add(str(tmp_path / "root"))
    try:
        assert add_secret(tree, file=str(tmp_path / "root/in")).content == b"word"
        assert delete(tree, "s0") == {}
        assert refusal(tree, file=str(tmp_path / "root/../out")).endswith(
            "/out”: Path is not below a directory of --mem-root"
        )
    finally:
        tree.host.roots.close()


def test_it_has_a_limit_and_is_counted() -> None:
    """No key is of megabytes, and all of it would be kept, and told, again and again."""
    console = Console()
    objects = console.daemon.tree.objects
    kept = objects.account.places
    add: Any = {"qom_type": "secret", "id": "s0"}
    too_long = "x" * ((1 << 20) + 1)
    for name in ("data", "iv", "keyid", "file"):
        assert console.refusal("object-add", **{**add, name: too_long}) == (
            "GenericError",
            f"Parameter '{name}' exceeds 1048576 bytes",
        )
    with as_user(STRANGER):
        console("object-add", **add, data="x" * (1 << 20))
    # What was given, and what came of it.
    before = kept.of(STRANGER)
    assert 2 << 20 < before < (2 << 20) + 1000
    console("qom-set", path="/objects/s0", property="iv", value="x" * 5000)
    assert 5000 < kept.of(STRANGER) - before < 6000
    text = console.refusal("qom-set", path="/objects/s0", property="data", value=too_long)[1]
    assert text == "Parameter 'data' exceeds 1048576 bytes"
    # What was refused is not counted.
    assert kept.of(STRANGER) - before < 6000
    console("object-del", id="s0")
    assert (kept.taken, objects.quota.memory) == (0, 0)
