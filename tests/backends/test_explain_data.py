from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from memd.backends.explain import plan_of
from memd.backends.explain_data import error_data, open_flags
from memd.backends.plan import Plan
from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.opened import MEMFD
from memd.hostmem.planning import PlannedFile
from memd.hostmem.spec import is_rom
from memd.json_types import JSON
from memd.qapi import load_schema
from memd.qapi.json_schema import json_schema
from memd.qom import Tree
from tests.backends.doing import MIB
from tests.backends.test_explain import arguments, told


@pytest.fixture
def full(directory: Path) -> str:
    """The path of a file with content."""
    path = directory / "full"
    path.write_bytes(b"x" * 2 * MIB)
    return str(path)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("rom", ["auto", "on", "off"])
def test_the_table(tree: Tree, full: str, share: bool, readonly: bool, rom: str) -> None:
    """Every row of share, readonly and rom, as `spec.is_rom` has it."""
    options = arguments("file", size=MIB, mem_path=full, share=share, readonly=readonly, rom=rom)
    answer = told(tree, options)
    if (not readonly and rom == "on") or (readonly and share and rom == "off"):
        with pytest.raises(QMPError) as caught:
            is_rom(share, readonly, rom)
        assert answer["error"]["desc"] == caught.value.desc
        assert "mapping" not in answer
        return
    denied = is_rom(share, readonly, rom)
    write = "denied" if denied else "file" if share else "private"
    assert answer["writes"] == write
    assert answer["file"]["open-flags"][0] == ("O_RDONLY" if readonly else "O_RDWR")
    assert answer["mapping"]["flags"] == ["MAP_SHARED" if share else "MAP_PRIVATE"]
    assert ("PROT_WRITE" in answer["mapping"]["protection"]) != denied
    changes = answer["file-changes"]
    assert ("write" in changes) == (write == "file")
    assert ("discard" in changes) == (not readonly) == (answer["discard"] == "hole")
    assert answer["shareable"] == ("no" if write == "private" else "path")
    assert answer["survives-restart"] == ("no" if write == "private" else "file")


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("ram", {}, ("private", "zeroes", "no", "no")),
        ("ram", {"share": True}, ("file", "hole", "descriptor", "descriptor")),
        ("memfd", {}, ("file", "hole", "descriptor", "descriptor")),
        ("memfd", {"share": False}, ("private", "hole", "no", "no")),
        ("shm", {}, ("file", "hole", "descriptor", "descriptor")),
        ("file", {"share": True, "mem-path": "."}, ("file", "hole", "descriptor", "descriptor")),
        ("file", {"share": True, "mem-path": "/dev/zero"}, ("file", "refused", "no", "no")),
    ],
)
def test_who_sees_what(
    tree: Tree, kind: str, options: dict[str, JSON], expected: tuple[str, ...]
) -> None:
    answer = told(tree, arguments(kind, size=MIB, **options))
    names = ("writes", "discard", "shareable", "survives-restart")
    assert tuple(answer[name] for name in names) == expected
    assert answer["file-changes"] == []


def test_private_discards_that_are_denied(tree: Tree, full: str) -> None:
    for share, expected in ((False, "refused"), (True, "hole")):
        options = arguments("file", size=MIB, mem_path=full, share=share)
        answer = told(tree, options, deny=True)
        assert answer["discard"] == expected
        assert ("discard" in answer["file-changes"]) == share


def test_files(tree: Tree, full: str, directory: Path) -> None:
    answer = told(tree, arguments("file", size=MIB, mem_path=full, offset=MIB))
    file = answer["file"]
    assert (file["kind"], file["path"], file["exists"], file["creates"]) == (
        *("file", full, True, False),
    )
    assert file["size"] == 2 * MIB
    assert "gets-size" not in file
    assert answer["mapping"]["offset"] == MIB
    new = str(directory / "new")
    answer = told(tree, arguments("file", size=MIB, mem_path=new, offset=MIB, share=True))
    assert (answer["file"]["exists"], answer["file"]["creates"]) == (False, True)
    assert (answer["file"]["size"], answer["file"]["gets-size"]) == (0, 2 * MIB)
    assert answer["file-changes"] == ["create", "resize", "write", "discard"]
    (directory / "new").touch()
    answer = told(tree, arguments("file", size=MIB, mem_path=new, readonly=True))
    assert "gets-size" not in answer["file"]
    assert answer["file-changes"] == []


def test_flags_by_name() -> None:
    memfd = PlannedFile("memfd", MEMFD, 0)
    for shift, name in ((21, "MFD_HUGE_2MB"), (30, "MFD_HUGE_1GB"), (16, "MFD_HUGE_64KB")):
        memfd.open_flags = os.MFD_CLOEXEC | os.MFD_HUGETLB | shift << os.MFD_HUGE_SHIFT
        assert open_flags(memfd) == ["MFD_CLOEXEC", "MFD_HUGETLB", name]
        # By the names that the C library has.
        assert getattr(os, name) == shift << os.MFD_HUGE_SHIFT
    memfd.open_flags = os.MFD_CLOEXEC | os.MFD_HUGETLB
    assert open_flags(memfd) == ["MFD_CLOEXEC", "MFD_HUGETLB"]


def test_persistent_memory(tree: Tree, full: str) -> None:
    options = arguments("file", size=MIB, mem_path=full, share=True, pmem=True)
    assert told(tree, options)["mapping"]["flags"] == ["MAP_SHARED"]
    from memd.backends.base import MemoryBackend
    from memd.backends.explain_data import mapping_data

    backend = tree.objects.prepare(options)
    assert isinstance(backend, MemoryBackend)
    plan = plan_of(backend, options)
    assert plan.spec is not None
    assert plan.file is not None
    plan.file.dax = True
    assert mapping_data(plan.spec, plan.file)["flags"] == [
        "MAP_SHARED_VALIDATE",
        "MAP_SYNC",
    ]


def test_errors() -> None:
    assert error_data(QMPError("no", "DeviceNotFound", hint="try")) == {
        "class": "DeviceNotFound",
        "desc": "no",
        "hint": "try",
    }


def test_verdicts() -> None:
    plan = Plan({})
    assert plan.verdict == "works"
    plan.unsure = ""
    assert plan.verdict == "unknown"
    plan.error = QMPError("no")
    assert plan.verdict == "fails"


@pytest.mark.parametrize("compat", list(Compat))
def test_it_is_what_the_schema_promises(tree: Tree, full: str, compat: Compat) -> None:
    from jsonschema import Draft202012Validator

    document = json_schema(load_schema(compat))
    validator = Draft202012Validator(
        {"$ref": "#/$defs/x-memdev-explain.returns", "$defs": document["$defs"]}
    )
    cases: list[dict[str, Any]] = [
        arguments("ram", size=4097),
        arguments("memfd", size=MIB, share=False, seal=False),
        arguments("file", size=MIB, mem_path=full, readonly=True),
        arguments("file", size=MIB, mem_path="/proc/version"),
        arguments("file", size=MIB, mem_path="/nowhere/x"),
        arguments("guest-memfd", size=MIB),
        arguments("ram", size=0),
        {"qom-type": "thread-context", "id": "m0"},
        {"qom-type": "memory-backend-epc", "id": "m0"},
    ]
    for options in cases:
        validator.validate(told(tree, options))
