"""Options as `key=value`: memd reads them as QEMU does, texts included.

Those of the human monitor's object_add are made up at random (see
test_arguments.py for MEMD_SEED and MEMD_RANDOM_ARGUMENTS); for those of
`-object` the reference has to be started anew each time, so they are few.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi.keyval import check_keyval
from memd.qapi.numbers import parse_size
from memd.qapi.opts import check_opts
from tests.differential.harness import Storage
from tests.differential.server import PATIENCE, Monitor
from tests.differential.test_arguments import COUNT, NO_ID, seeds
from tests.qapi.files import whole_schema

KEYS = [
    *["dump", "host-nodes", "merge", "policy", "prealloc", "prealloc-threads", "share", "reserve"],
    *["prealloc-context", "size", "mem-path", "hugetlb", "seal", "rom", "readonly", "align"],
    *["cpu-affinity", "node-affinity", "foo", "bar", "id", "__com.example_x", "9", "a b", "-a"],
]
TYPES = ["memory-backend-ram", "memory-backend-file", "memory-backend-memfd", "thread-context"]
VALUES = [
    *["on", "off", "yes", "y", "n", "false", "ON", "", "0", "1", "2", "01", "0x2", "-1", " 1"],
    *["1 ", "1k", "4k", "1.5M", ".5G", "1.5", "x", "bind", "default", "auto", "65536", "a,b"],
    *["4294967296", "18446744073709551616", "-18446744073709551615", "9223372036854775808"],
]
SIZE_LETTERS = "0123456789" * 2 + ".." + "kKmMgGtTpPeEbB" + "xX+-"


@pytest.fixture
def monitor(kept_qemu: Storage) -> Iterator[Monitor]:
    monitor = kept_qemu.server().monitor()
    yield monitor
    assert "return" in monitor.execute("query-status")
    monitor.close()


def object_add(monitor: Monitor, options: str) -> str:
    """What the human monitor says of options, without a hint below it."""
    answer = monitor.execute("human-monitor-command", {"command-line": f"object_add {options}"})
    said: str = answer["return"]
    return said.split("\r\n")[0].removeprefix("Error: ")


def made_up(random_: random.Random) -> dict[str, str]:
    options = {"qom-type": random_.choice(TYPES)}
    if random_.random() < 0.95:
        options["size"] = "4k"
    if random_.random() < 0.3:
        options["mem-path"] = "/nowhere/x"
    for _ in range(random_.randrange(5)):
        key = random_.choice(KEYS)
        while random_.random() < 0.2:
            key += random_.choice([".0", ".1", ".2", ".00", ".x", ".", ".a.b"])
        options[key] = random_.choice(VALUES)
    options["id"] = NO_ID
    return options


def written(options: dict[str, str]) -> str:
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())


def test_object_add(monitor: Monitor, compat: Compat) -> None:
    type_ = whole_schema(compat).object_type("ObjectOptions")
    for seed in seeds():
        random_ = random.Random(seed)
        for _ in range(COUNT // 2):
            options = made_up(random_)
            try:
                check_keyval(type_, options)
                expected = "Parameter 'id' expects an identifier"
            except QMPError as error:
                expected = error.desc
            said = object_add(monitor, written(options))
            assert said == expected, f"MEMD_SEED={seed}: {written(options)!r}"


def test_sizes(monitor: Monitor, directory: Path) -> None:
    # A size that is more than the file has is told of in hexadecimal.
    file = directory / "file"
    file.write_bytes(bytes(4096))
    start = f"memory-backend-file,id=size,readonly=on,rom=off,size=4k,mem-path={file},offset="
    for seed in seeds():
        random_ = random.Random(seed)
        for _ in range(COUNT // 4):
            text = "".join(random_.choices(SIZE_LETTERS, k=random_.randrange(1, 9)))
            said = object_add(monitor, start + text)
            size = parse_size(text)
            what = f"MEMD_SEED={seed}: {text!r} is {size}, and QEMU says {said}"
            if size is None:
                assert said == "Parameter 'offset' expects size", what
            elif size == 0:
                assert said == "", what
                monitor.execute("object-del", {"id": "size"})
            else:
                assert f"offset {size:#x} must" in said or said.endswith(f" {size:#x}"), what


OPTIONS: list[list[str]] = [
    ["id=m"],
    ["qom-type=zzz", "id=m"],
    ["qom-type=memory-backend-ram", "id=m"],
    ["qom-type=memory-backend-ram", "id=m", "bar=2", "foo=1", "baz=1", "size=4k"],
    ["qom-type=memory-backend-ram", "id=m", "z=2", "y=1", "x=1", "w=1", "v=1", "u=1", "size=4k"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "share=1", "policy=bad"],
    ["qom-type=memory-backend-ram", "id=m", "size=1.5"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "prealloc-threads=-1"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "prealloc-threads=4294967296"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "host-nodes=0--1"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "host-nodes=0-65536"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "host-nodes=65530-65540"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "host-nodes=0", "host-nodes=x"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "host-nodes.0=0"],
    ["qom-type=memory-backend-ram", "id=m", "size=4k", "share=on", "share=2"],
    ["qom-type=memory-backend-file", "id=m", "size=4k", "rom=x"],
    ["qom-type=tls-creds-x509", "id=m", "endpoint=x"],
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options))
def test_object_option(kept_qemu: Storage, compat: Compat, options: list[str]) -> None:
    pairs: list[Any] = [option.split("=", 1) for option in options]
    with pytest.raises(QMPError) as caught:
        check_opts(whole_schema(compat).object_type("ObjectOptions"), pairs)
    text = ",".join(options)
    # The next option ends it, should this one not.
    argv = [*kept_qemu.server().argv[:-2], "-object", text, "-object", "ends-it"]
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert f"-object {text}: {caught.value.desc}" in done.stderr.split(": ", 1)[1]
