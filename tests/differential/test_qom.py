"""The object model beside a real QEMU: the tree, its paths, properties and types.

memd's side runs in this process, handlers and schema checks without a server;
the reference is a QEMU of the test's own, as some properties of `/machine`
would stay changed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd import backends
from memd.commands import qom as handlers
from memd.commands.daemon import Daemon
from memd.commands.hmp_info import info_qom_tree
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here, value_of
from tests.commands.fakes import daemon_of
from tests.differential.harness import OWN_TYPES
from tests.differential.server import PATIENCE, Message, Monitor, is_listening, qemu_argv
from tests.stepping import made

Handler = Callable[[Daemon, dict[str, Any]], JSON]

HANDLERS: dict[str, Handler] = {
    "object-add": handlers.object_add,
    "object-del": handlers.object_del,
    "qom-get": handlers.qom_get,
    "qom-set": handlers.qom_set,
    "qom-list": handlers.qom_list,
    "qom-list-get": handlers.qom_list_get,
    "qom-list-types": handlers.qom_list_types,
    "qom-list-properties": handlers.qom_list_properties,
    "query-memdev": lambda daemon, args: handlers.query_memdev(daemon, args).value(),
}

# Only the reference has a monitor in its tree here.
MONITOR = "compat_monitor0"


class Local:
    """memd without a server: a tree, its commands and their checks."""

    def __init__(self, compat: Compat) -> None:
        self.tree = Tree(compat)
        backends.register(self.tree)
        self.daemon = daemon_of(self.tree)

    def execute(self, command: str, arguments: JSON = None) -> Message:
        """A command's answer."""
        try:
            checked = self.daemon.schema.checker(command)(arguments or {})
            result = made(run_here(value_of(HANDLERS[command](self.daemon, checked))))
        except QMPError as error:
            return {"error": {"class": error.error_class, "desc": error.desc}}
        return {"return": result}

    def stop(self) -> None:
        """Delete what there is, contexts last."""
        for _round in range(2):
            for id in [*self.tree.objects.children]:
                self.execute("object-del", {"id": id})


class Both:
    """The reference and memd, to be given the same commands."""

    def __init__(self, qemu: Monitor) -> None:
        version = qemu.greeting["QMP"]["version"]["qemu"]
        self.later = version["major"] > 10
        self.qemu = qemu
        self.memd = Local(Compat.V11_1 if self.later else Compat.V10_0)

    def ask(self, command: str, arguments: JSON = None) -> Message:
        """Execute a command on both; the answer that they agree on."""
        theirs = _sorted(self.qemu.execute(command, arguments))
        ours: Message = _sorted(self.memd.execute(command, arguments))
        assert _text(ours) == _text(theirs), (command, arguments)
        return ours

    def add(self, kind: str, id: str, **options: JSON) -> None:
        """object-add on both, which has to succeed."""
        named = {name.replace("_", "-"): value for name, value in options.items()}
        answer = self.ask("object-add", {"qom-type": kind, "id": id, **named})
        assert answer == {"return": {}}


def _sorted(value: JSON) -> JSON:
    """The same, with lists of objects, which come in the order of a hash table, sorted.

    The monitor's objects and the numbers of threads are left out.
    """
    if isinstance(value, list):
        items = [
            _sorted(item)
            for item in value
            if not (isinstance(item, dict) and item.get("name") == MONITOR)
        ]
        if items and isinstance(items[0], dict):
            items.sort(key=_text)
        return items
    if isinstance(value, dict):
        left_out = "value" if value.get("name") == "thread-id" else None
        return {name: _sorted(member) for name, member in value.items() if name != left_out}
    return value


def _text(value: JSON) -> str:
    return json.dumps(value, sort_keys=True)


@contextlib.contextmanager
def _own_qemu(argv: list[str], directory: Path) -> Iterator[Monitor]:
    """A QEMU for the length of a `with` block, and its first connection.

    QEMU loses a client now and then that comes while it starts, or just after
    another one has left: so this one waits a moment, and no other is before it.
    """
    path = directory / "qmp.sock"
    command = [*argv, "-S", "-qmp", f"unix:{path},server=on,wait=off"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_listening(path):
            assert process.poll() is None, "QEMU did not start"
            assert time.monotonic() < deadline, "QEMU does not listen"
            time.sleep(0.005)
        time.sleep(0.05)
        monitor = Monitor(path)
        with contextlib.closing(monitor):
            yield monitor
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def both(directory: Path) -> Iterator[Both]:
    """A fresh QEMU and a fresh memd."""
    argv = qemu_argv()
    with _own_qemu(argv, directory) as qemu:
        both = Both(qemu)
        yield both
        both.memd.stop()


RAM = "memory-backend-ram"


def _meeting_names(both: Both) -> None:
    """Objects whose names meet those of others."""
    both.add("thread-context", "tc")
    both.add(RAM, "m0", size=65536)
    both.add(RAM, "m1", size=65536, prealloc_context="tc")
    both.add(RAM, "m2", size=65536, prealloc_context="tc")
    for id in ("machine", "backend", "objects", "size", "io", "peripheral", "a.b-c_d"):
        both.add(RAM, id, size=65536)


def _walk(both: Both, path: str) -> None:
    listed = both.ask("qom-list", {"path": path})["return"]
    for item in listed:
        child = f"{path.rstrip('/')}/{item['name']}"
        if item["name"] != "thread-id":
            both.ask("qom-get", {"path": path, "property": item["name"]})
        if item["type"].startswith("child<"):
            _walk(both, child)
    if both.later:
        both.ask("qom-list-get", {"paths": [path]})


def test_the_standing_tree(both: Both) -> None:
    _walk(both, "/")


def test_the_tree_with_objects(both: Both, directory: Path) -> None:
    (directory / "file").touch()
    both.add(RAM, "m0", size=65536)
    both.add("memory-backend-file", "f0", size=65536, mem_path=str(directory / "file"))
    both.add("memory-backend-memfd", "d0", size=65536)
    both.add("memory-backend-shm", "s0", size=65536)
    _walk(both, "/")
    both.ask("query-memdev")


PATHS = [
    *("/", "//", "///", "", "/objects", "/objects/", "//objects", "objects", "objects/"),
    *("/objects/m0", "/objects//m0", "/objects/m0/", "//objects//m0//", "m0", "m0/", "m0//"),
    *("/m0", "objects/m0", "objects//m0", "objects/objects/m0", "..", ".", "/..", "/.", "./m0"),
    *("/objects/..", "/objects/./m0", "../objects/m0", "m0[0]", "m0/m0[0]", "m0[1]", "[0]"),
    *("/objects/m0/m0[0]", "/objects/m0/m0[0]/", "/objects/m0/m0[0]/container", "container"),
    *("/objects/m0/prealloc-context", "m0/prealloc-context", "prealloc-context"),
    *("/objects/m1/prealloc-context", "m1/prealloc-context", "/objects/m1/prealloc-context/"),
    *("m1/prealloc-context/type", "tc", "/objects/tc", "machine", "/machine", "/machine/"),
    *("/machine/machine", "objects/machine", "/objects/machine", "backend", "objects/backend"),
    *("/objects/objects", "objects/objects", "size", "/objects/size", "m0/size", "type"),
    *("/type", "/objects/type", "/objects/m0/type", "io", "io[0]", "io/io[0]", "unattached/io[0]"),
    *("/machine/unattached/io[0]", "system[0]", "sysbus", "peripheral", "peripheral-anon"),
    *("unattached", "chardevs", "/chardevs", "audiodevs", "a.b-c_d", "/objects/a.b-c_d"),
    *("/machine/memory-backend", "/machine/confidential-guest-support", "memory-backend"),
    *("hotplug-handler", "/machine/unattached/sysbus/hotplug-handler", "sysbus/realized"),
    *(" ", " m0", "m0 ", "/objects/m0 ", "/objects/M0", "m0\\", "%s", "'", '"', "\n", "\0", "/\0"),
    *("m0\0", "m0\0zz", "/objects\0/m0", "é", "\U0001f600", "x" * 1500, "zz", "/zz", "zz/", "0"),
]


def test_paths(both: Both) -> None:
    _meeting_names(both)
    for path in PATHS:
        both.ask("qom-list", {"path": path})
        both.ask("qom-get", {"path": path, "property": "type"})
        both.ask("qom-get", {"path": path, "property": "zz"})
        both.ask("qom-set", {"path": path, "property": "type", "value": 1})
        if both.later:
            both.ask("qom-list-get", {"paths": ["/machine", path]})


def test_links_take_paths(both: Both) -> None:
    _meeting_names(both)
    link = {"path": "/objects/m0", "property": "prealloc-context"}
    for path in PATHS:
        both.ask("qom-set", {**link, "value": path})
        both.ask("qom-get", link)
        both.ask("qom-set", {"path": "/machine", "property": "memory-backend", "value": path})
        both.ask("qom-get", {"path": "/machine", "property": "memory-backend"})


def test_what_is_linked_to_may_go(both: Both) -> None:
    _meeting_names(both)
    both.ask("qom-set", {"path": "/machine", "property": "memory-backend", "value": "m0"})
    both.ask("object-del", {"id": "tc"})
    both.ask("object-del", {"id": "m0"})
    for path, name in (("/objects/m1", "prealloc-context"), ("/machine", "memory-backend")):
        both.ask("qom-get", {"path": path, "property": name})
        both.ask("qom-list", {"path": f"{path}/{name}"})
        both.ask("qom-get", {"path": f"{path}/{name}", "property": "type"})
    link = {"path": "/objects/m1", "property": "prealloc-context"}
    both.ask("qom-set", {**link, "value": "m2/prealloc-context"})
    both.ask("qom-set", {**link, "value": ""})
    both.ask("qom-list", {"path": "/objects/m1/prealloc-context"})


VALUES: list[JSON] = [
    *(True, False, 1, 0, -1, 1.5, 2**31, 2**32, 2**63, 2**64, 4096, None, [], {}, {"a": 1}),
    *("", "x", "on", "off", "64k", "none", "default", "bind", "m0", "tc", "/objects/m0", "/"),
    *([0], [1.5], ["a"], [-1], [{}], [999], [0, 0], [None]),
]
# What each of the two makes of a refused CPU topology is another matter, and
# so is what a NUMA policy does on a host whose nodes are not known.
STRUCTURES = ("smp", "smp-cache")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/machine", "/machine/unattached/io[0]", "/machine/unattached/sysbus"),
        *("/objects/m0", "/objects/f0", "/objects/d0", "/objects/s0", "/objects/m0/m0[0]"),
        "/objects",
    ],
)
def test_any_value_for_any_property(both: Both, directory: Path, path: str) -> None:
    (directory / "file").touch()
    both.add("thread-context", "tc")
    both.add(RAM, "m0", size=65536)
    both.add("memory-backend-file", "f0", size=65536, mem_path=str(directory / "file"))
    both.add("memory-backend-memfd", "d0", size=65536)
    both.add("memory-backend-shm", "s0", size=65536)
    for item in both.ask("qom-list", {"path": path})["return"]:
        named = {"path": path, "property": item["name"]}
        for value in VALUES:
            both.ask("qom-set", {**named, "value": value})
            if item["name"] not in STRUCTURES:
                both.ask("qom-get", named)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "boot",
            [
                *(
                    {"order": order}
                    for order in ("c", "z", "", "C", "cc", "cdc", "abcdefghijklmnop")
                ),
                *({"once": "z", "order": "y"}, {"order": "c", "once": "dd"}, {"menu": True}),
                *({"menu": 1}, {"splash-time": -1}, {"splash-time": 2**63}, {"strict": None}),
                *({"zz": 1, "order": 3}, {"splash": "/x", "reboot-timeout": 70000}, {}),
            ],
        ),
        (
            "memory",
            [
                *({"size": size} for size in (0, 1, 8192, 1 << 20, -1, -8192, "1M", 2**64)),
                *({"slots": slots} for slots in (0, 2, -1, "x")),
                *({"max-size": size} for size in (0, 5, 1 << 30)),
                *({"size": 5, "max-size": size} for size in (7, 8192, 8193)),
                *({"size": 5, "max-size": size, "slots": 1} for size in (7, 8192, 8193)),
                *({"max-size": 1 << 30, "slots": slots} for slots in (0, 1, -1)),
                {"zz": 1, "size": "x"},
            ],
        ),
        (
            "smp",
            [
                *({"cpus": cpus} for cpus in (0, 1, 2, -1, "1", 1.0, 2**31, 2**32, 2**63)),
                *({level: 2} for level in ("sockets", "cores", "threads", "maxcpus", "dies")),
                *({level: 0} for level in ("sockets", "drawers", "books", "maxcpus")),
                *({"dies": 2, level: 2} for level in ("modules", "clusters", "books", "drawers")),
                *({"cpus": 1, level: 2} for level in ("sockets", "cores", "threads", "maxcpus")),
                *({"cpus": 2, "maxcpus": maxcpus} for maxcpus in (1, 2, 4)),
                {"cpus": 1, "maxcpus": 2, "sockets": 1, "cores": 1, "threads": 1},
                {"cpus": 3, "maxcpus": 2, "cores": 2},
                {"cpus": 4, "maxcpus": 5, "sockets": 2, "cores": 2},
                {"cores": 1 << 16, "sockets": 1 << 16},
                {"zz": 1, "cpus": "x"},
            ],
        ),
        (
            "smp-cache",
            [
                [{"cache": "l1d", "topology": "default"}],
                [{"cache": "l9", "topology": "core"}],
                [{"cache": "l1d", "topology": "invalid"}],
                [{"cache": "l1d"}],
                [{"topology": "core"}],
                [{"cache": 1, "topology": "core"}],
                [{"cache": "l2", "topology": "default", "z": 1}],
                [{"cache": "l2", "topology": "core"}, {"cache": "l2", "topology": "core"}],
                [{"cache": "l3", "topology": "core"}, {"cache": "l2", "topology": "socket"}],
            ],
        ),
        ("memory-encryption", ["zz", "m0", "type", "/objects/m0", ""]),
    ],
)
def test_structures_of_the_machine(both: Both, name: str, values: list[JSON]) -> None:
    both.add(RAM, "m0", size=65536)
    for value in values:
        both.ask("qom-set", {"path": "/machine", "property": name, "value": value})
        if name not in STRUCTURES:
            both.ask("qom-get", {"path": "/machine", "property": name})


def test_which_of_several_refusals(both: Both) -> None:
    """Options are set in an order that has nothing to do with the one given."""
    bad: dict[str, JSON] = {
        "size": 0,
        "prealloc-threads": 0,
        "host-nodes": [999],
        "hugetlbsize": 0,
        "prealloc-context": "zz",
    }
    memfd = {"qom-type": "memory-backend-memfd", "id": "m0"}
    for one in bad:
        for other in bad:
            options = {"size": 65536, one: bad[one], other: bad[other]}
            assert "error" in both.ask("object-add", {**memfd, **options})


def _common(answer: Message) -> list[JSON]:
    """The types of an answer that QEMU may have as well."""
    found: list[JSON] = _sorted(
        [each for each in answer["return"] if each["name"] not in OWN_TYPES]
    )
    return found


def test_types(both: Both) -> None:
    ours = _common(both.memd.execute("qom-list-types", {"abstract": True}))
    theirs = both.qemu.execute("qom-list-types", {"abstract": True})["return"]
    known = {each["name"] for each in ours}
    assert len(known) == len(ours) > 25

    def mine(answer: Message) -> JSON:
        return _sorted([each for each in answer["return"] if each["name"] in known])

    assert _sorted(ours) == mine({"return": theirs})
    for name in (*sorted(known), "zz", ""):
        for abstract in (True, False, None):
            arguments: JSON = {"implements": name}
            if abstract is not None:
                arguments["abstract"] = abstract
            answer = both.memd.execute("qom-list-types", arguments)
            expected = mine(both.qemu.execute("qom-list-types", arguments))
            assert _common(answer) == expected, arguments


NAMES_ONLY = frozenset(
    (
        *("pci-xhci", "qemu-xhci", "virtio-balloon-pci-base", "virtio-balloon-pci"),
        *("virtio-blk-pci-base", "virtio-blk-pci-non-transitional"),
    )
)
"""Types that are known so that they can be named; they have few of their properties."""


def test_properties_of_types(both: Both) -> None:
    for each in _common(both.memd.execute("qom-list-types", {"abstract": True})):
        if each["name"] in NAMES_ONLY:
            continue
        both.ask("qom-list-properties", {"typename": each["name"]})
    for name in ("zz", "", "memory-backend-epc", "object "):
        both.ask("qom-list-properties", {"typename": name})


def test_the_tree_as_text(both: Both) -> None:
    _meeting_names(both)
    for path in ("/objects", "/machine", "m0", "/objects/m1/prealloc-context/", "sysbus", "//"):
        assert _dump(both.qemu, path) == _told(both, path=path)
    for path in ("/zz", "objects", "zz", "m0/size"):
        assert _dump(both.qemu, path) == _told(both, path=path)
    assert _dump(both.qemu, "") == _told(both)
    both.ask("object-del", {"id": "tc"})
    path = "/objects/m1/prealloc-context"
    assert _dump(both.qemu, path) == _told(both, path=path)


def _told(both: Both, **arguments: str) -> list[str]:
    return run_here(info_qom_tree(both.memd.daemon, arguments))


def _dump(qemu: Monitor, path: str) -> list[str]:
    answer = qemu.execute("human-monitor-command", {"command-line": f"info qom-tree {path}"})
    *lines, end = answer["return"].split("\r\n")
    assert end == ""
    return [line for line in lines if f"/{MONITOR} (" not in line]
