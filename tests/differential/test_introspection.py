"""query-qmp-schema: what memd promises of a command is what QEMU promises of it."""

from __future__ import annotations

from typing import Any

import pytest

from memd.compat import Compat
from memd.qapi.introspect import introspect
from memd.qapi.reader import load_schema
from memd.qapi.schema import Schema
from tests.differential._reference_qapi import Comparison
from tests.differential.harness import Storage
from tests.qapi.files import whole_schema

FEWER = {
    "blockdev-add": "only what blocks a command for a test of out-of-band execution",
    "query-block": "there are no block devices to tell of",
    "query-named-block-nodes": "there are no block nodes to tell of",
}
"""Commands of which memd's schema has fewer members, and why."""


@pytest.fixture(scope="module")
def theirs(kept_qemu: Storage) -> list[dict[str, Any]]:
    monitor = kept_qemu.server().monitor()
    told: list[dict[str, Any]] = monitor.execute("query-qmp-schema")["return"]
    monitor.close()
    return told


def compare(schema: Schema, theirs: list[dict[str, Any]], meta_type: str) -> list[str]:
    comparison = Comparison(introspect(schema), theirs)
    names = comparison.callable_by_both(meta_type)
    assert names
    return [
        difference for name in names for difference in comparison.compare(name, fewer=name in FEWER)
    ]


@pytest.mark.parametrize("meta_type", ["command", "event"])
def test_what_is_served(theirs: list[dict[str, Any]], compat: Compat, meta_type: str) -> None:
    assert compare(load_schema(compat), theirs, meta_type) == []


@pytest.mark.parametrize("meta_type", ["command", "event"])
def test_what_is_written(theirs: list[dict[str, Any]], compat: Compat, meta_type: str) -> None:
    assert compare(whole_schema(compat), theirs, meta_type) == []


_OWN = ("x-memdev-", "X_MEMDEV_", "x-template-", "X_TEMPLATE_", "x-test-", "x-pool-", "x-hugepage-")


def test_what_is_memds_own_says_so(theirs: list[dict[str, Any]], compat: Compat) -> None:
    known = {entry["name"] for entry in theirs}
    schema = whole_schema(compat)
    own = {*schema.commands, *schema.events} - known
    assert own
    assert all(name.startswith(_OWN) for name in own)


def test_a_difference_is_found(theirs: list[dict[str, Any]], compat: Compat) -> None:
    ours = introspect(load_schema(compat))
    for entry in ours:
        for member in entry.get("members", ()):
            if member.get("name") == "mem-path":
                member["default"] = None
    assert Comparison(ours, theirs).compare("object-add") == [
        "object-add: arg-type.(memory-backend-file).mem-path: default: None, theirs 'absent'"
    ]
