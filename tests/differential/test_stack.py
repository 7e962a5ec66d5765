"""What management stacks ask besides memory: the same answers as a real QEMU's."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memd.json_types import JSON
from tests import NOT_THERE
from tests.differential.harness import Pair, Side

THE_SAME = (
    *("query-cpus-fast", "query-hotpluggable-cpus", "x-exit-preconfig", "query-iothreads"),
    *("query-block", "query-named-block-nodes", "query-migrate-capabilities", "query-yank"),
    *("query-memory-devices", "query-memory-size-summary", "migrate-pause", "query-name"),
    *("migrate-recover", "migrate-set-capabilities", "yank", "set-action", "query-target"),
    *(
        "device_add",
        "device_del",
        "device-list-properties",
        "blockdev-add",
        "query-uuid",
        "query-jobs",
    ),
)


@pytest.mark.parametrize("command", THE_SAME)
def test_with_no_arguments_to_speak_of(pair: Pair, command: str) -> None:
    for arguments in (None, {}, {"nope": 1}):
        pair.ask(command, arguments)


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("query-named-block-nodes", {"flat": True}),
    ("query-named-block-nodes", {"flat": 1}),
    ("query-machines", {"compat-props": 1}),
    ("migrate-recover", {"uri": "tcp:0:1"}),
    ("migrate-recover", {"uri": 1}),
    ("migrate-set-capabilities", {"capabilities": []}),
    ("migrate-set-capabilities", {"capabilities": {}}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "events"}]}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "x", "state": True}]}),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": 1}]}),
    ("yank", {"instances": []}),
    ("yank", {"instances": [{"type": "migration"}]}),
    ("yank", {"instances": [{"type": "chardev"}]}),
    ("yank", {"instances": [{"type": "chardev", "id": "nope"}]}),
    ("yank", {"instances": [{"type": "block-node", "node-name": "n"}]}),
    ("yank", {"instances": [{"type": "x"}]}),
    ("yank", {"instances": 1}),
    ("set-action", {"panic": "exit-failure", "reboot": "shutdown", "shutdown": "pause"}),
    ("set-action", {"watchdog": "inject-nmi"}),
    ("set-action", {"panic": "reset"}),
    ("set-action", {"panic": "pause", "reboot": "reset", "shutdown": "poweroff"}),
    ("set-action", {"watchdog": "reset"}),
    ("device-list-properties", {"typename": "nope"}),
    ("device-list-properties", {"typename": "memory-backend-ram"}),
    ("device-list-properties", {"typename": "object"}),
    ("device-list-properties", {"typename": 1}),
    ("device_add", {"driver": 1}),
    ("device_add", {"driver": "nope-dev"}),
    ("device_add", {"driver": "pc-dimm"}),
    ("device_add", {"driver": "pc-dimm", "id": "d0", "memdev": "nope", "foo": 1}),
    ("device_add", {"driver": "pc-dimm", "bus": "b"}),
    ("device_add", {"driver": "nvdimm", "id": "1x"}),
    ("device_add", {"driver": "virtio-mem-pci", "memdev": "nope"}),
    ("device_add", {"driver": "virtio-pmem-pci", "bus": "b"}),
    ("device_add", {"driver": "memory-backend-ram"}),
    ("device_del", {"id": "d0"}),
    ("device_del", {"id": "/machine/peripheral/d0"}),
    ("device_del", {"id": 1}),
    ("blockdev-add", {"driver": "nope"}),
    ("blockdev-add", {"driver": 1}),
    ("blockdev-add", {"driver": "null-co"}),
    ("blockdev-add", {"driver": "null-co", "node-name": "1x"}),
    ("blockdev-add", {"driver": "null-co", "node-name": ""}),
    ("blockdev-add", {"driver": "null-co", "node-name": "a" * 32}),
    ("blockdev-add", {"driver": "null-co", "node-name": "a", "nope": 1}),
    ("blockdev-add", {"driver": "blkdebug", "node-name": "a"}),
    ("blockdev-add", {"driver": "blkdebug", "node-name": "a", "image": 1}),
    ("blockdev-add", {"driver": "blkdebug", "node-name": "a", "image": {"driver": "nope"}}),
]


@pytest.mark.parametrize(("command", "arguments"), ASKED, ids=[f"{n} {a}"[:60] for n, a in ASKED])
def test_arguments(pair: Pair, command: str, arguments: dict[str, Any]) -> None:
    pair.ask(command, arguments)


@pytest.mark.parametrize("config", ["", f"{NOT_THERE}/x", "/", "/proc/self/mem"])
def test_a_configuration_that_can_not_be_read(pair: Pair, config: str) -> None:
    arguments = {"driver": "blkdebug", "node-name": "n", "config": config}
    pair.refuse("blockdev-add", {**arguments, "image": {"driver": "null-co"}})


def test_the_machine_none(pair: Pair) -> None:
    def none(side: Side) -> JSON:
        machines = side.ask("query-machines", {"compat-props": True})["return"]
        return [machine for machine in machines if machine["name"] == "none"]

    pair.same("none", none)


def test_character_devices(pair: Pair) -> None:
    def asked(side: Side) -> JSON:
        answer = side.ask("query-chardev")["return"]
        for chardev in answer:
            chardev["filename"] = chardev["filename"].replace(str(side.server.path), "PATH")
        return answer

    pair.same("query-chardev", asked)


CAPABILITIES = (
    *("xbzrle", "rdma-pin-all", "auto-converge", "events", "postcopy-ram", "x-colo"),
    *("release-ram", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps"),
    *("postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid"),
    *("background-snapshot", "zero-copy-send", "postcopy-preempt", "switchover-ack"),
    *("dirty-limit", "mapped-ram"),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="not here: root, for QEMU to have userfaultfd(2)")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.sampled_from(CAPABILITIES)))
def test_capabilities_that_contradict_each_other(new_pair: Pair, on: set[str]) -> None:
    """Which conflict is named when there are several.

    Both are newly started: what stays switched on is of no concern to other tests.
    """
    wanted = [{"capability": name, "state": name in on} for name in CAPABILITIES]
    new_pair.ask("migrate-set-capabilities", {"capabilities": wanted})
    new_pair.ask("query-migrate-capabilities")
    off = [{"capability": name, "state": False} for name in CAPABILITIES]
    new_pair.ask("migrate-set-capabilities", {"capabilities": off})
