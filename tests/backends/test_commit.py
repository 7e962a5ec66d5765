"""`--commit strict`: no order of commands and writes ends in a lack of huge pages."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.json_types import JSON
from tests.conftest import NOT_HERE, hugepage_state
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, Message, Monitor, Server
from tests.faults.test_hugepages import HUGE, taken
from tests.seeds import seed_of_run

SEED = seed_of_run()
STEPS = 150
PAGES = 12
KIND = "memory-backend-memfd"


@pytest.fixture
def hugetlbfs(directory: Path) -> Iterator[Path]:
    place = directory / "huge"
    place.mkdir()
    mount = ["mount", "-t", "hugetlbfs", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip(f"{NOT_HERE}root and hugetlbfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def add(monitor: Monitor, id: str, pages: int, **more: JSON) -> Message:
    options = {"qom-type": KIND, "hugetlb": True, "size": pages * HUGE, **more}
    if options["qom-type"] != KIND:
        del options["hugetlb"]
    return monitor.execute("object-add", {"id": id, **options})


def row(monitor: Monitor) -> dict[str, JSON]:
    found = monitor.execute("x-hugepage-query")["return"]
    rows = {each["page-size"]: each for each in found}
    wanted: dict[str, JSON] = rows[HUGE]
    return wanted


def refusal(answer: Message) -> str:
    text: str = answer["error"]["desc"]
    return text


def test_what_could_lack_pages_later_is_refused(
    hugepages: Callable[[int], None], hugetlbfs: Path, start_memd: Callable[..., Server]
) -> None:
    hugepages(8)
    strict, usual = start_memd("--commit", "strict").monitor(), start_memd().monitor()
    template = {"qom-type": "memory-backend-file", "mem-path": str(hugetlbfs / "template")}
    clone = {**template, "share": False, "readonly": True, "rom": "off", "reserve": False}
    assert add(usual, "t", 2, **template, share=True, prealloc=True) == {"return": {}}
    # Six are left: three clones may copy all they have.
    for number in range(3):
        assert add(strict, f"c{number}", 2, **clone) == {"return": {}}
        assert row(strict)["claims"] == 2 * number + 2
    text = "2 huge pages of 2 MiB can't be committed: 6 are free and not set aside, and 8 could be"
    assert refusal(add(strict, "c3", 2, **clone)).startswith(text)
    explained = strict.execute("x-memdev-explain", {"id": "x", "size": 2 * HUGE, **clone})
    assert explained["return"]["error"]["desc"].startswith(text)
    # What the kernel would set aside is taken from them likewise.
    assert "can't be committed" in refusal(add(strict, "m", 1))
    # Copied, they are not claims any more; thrown away, they are again.
    strict.execute("x-memdev-write", {"id": "c0", "offset": 0, "data": "AAAA"})
    assert row(strict)["claims"] == 5
    assert strict.execute("object-del", {"id": "c0"}) == {"return": {}}
    assert add(strict, "m", 2) == {"return": {}}
    assert row(strict)["claims"] == 4
    discard = {"id": "m", "offset": 0, "length": HUGE}
    assert strict.execute("x-memdev-discard", discard) == {"return": {}}
    assert row(strict)["claims"] == 5
    # Without it all of that is made, and said.
    for number in (3, 4, 5):
        assert add(usual, f"c{number}", 2, **clone) == {"return": {}}
    told = usual.execute("x-memdev-explain", {"id": "x", "size": 2 * HUGE, **clone})["return"]
    assert "may claim 6 by copy-on-write" in told["warnings"][0]["text"]
    assert "6 could be claimed" in row(usual)["lacking"]


def test_what_others_take_is_said(
    hugepages: Callable[[int], None], start_memd: Callable[..., Server]
) -> None:
    hugepages(2)
    server = start_memd("--commit", "strict")
    monitor = server.monitor()
    assert add(monitor, "m", 2, reserve=False) == {"return": {}}
    with taken(1):
        assert row(monitor)["lacking"].endswith(
            "are free and not set aside, and 2 could be claimed"
        )
        said = settle(server.stderr, lambda text: "SIGBUS" in text, PATIENCE)
        assert "could be claimed: a write may end in SIGBUS" in said
    assert "lacking" not in row(monitor)


def test_a_pool_is_refused_too(
    hugepages: Callable[[int], None], start_memd: Callable[..., Server]
) -> None:
    hugepages(4)
    server = start_memd("--commit", "strict", "--pool", f"{KIND},hugetlb=on,size=4M,count=2")
    monitor = server.monitor()
    settle(lambda: monitor.execute("x-pool-query"), lambda found: "ready': 2" in str(found))
    # What takes from it claims nothing.
    options: dict[str, JSON] = {"prealloc": True}
    assert add(monitor, "m0", 2, **options) == {"return": {}}
    assert "can't be committed" in refusal(add(monitor, "m1", 1, reserve=False))


TOUCH = """
import mmap, sys
fd, size, at = map(int, sys.argv[1:])
with mmap.mmap(fd, size) as memory:
    memory[at] = 1
"""
"""What another process does that was handed a descriptor."""


def test_no_order_ends_in_sigbus(
    hugepages: Callable[[int], None], hugetlbfs: Path, start_memd: Callable[..., Server]
) -> None:
    """Seed in MEMD_SEED."""
    hugepages(PAGES)
    rng = random.Random(SEED)
    server = start_memd("--commit", "strict")
    monitor = server.monitor()
    path = str(hugetlbfs / "template")
    template: dict[str, JSON] = {"qom-type": "memory-backend-file", "mem-path": path}
    assert add(monitor, "t", 2, **template, share=True, prealloc=True) == {"return": {}}
    there: dict[str, tuple[int, bool]] = {}
    refused = made = 0
    for step in range(STEPS):
        what = rng.choice(("add", "add", "write", "write", "touch", "discard", "del"))
        context = f"MEMD_SEED={SEED}, step {step}: {what} among {there}"
        if what == "add":
            pages, share = rng.randrange(1, 5), rng.random() < 0.5
            options: dict[str, JSON] = {"share": share, "reserve": rng.random() < 0.5}
            if rng.random() < 0.3:
                pages, share = 2, False
                options |= {**template, "share": False, "readonly": True, "rom": "off"}
            elif rng.random() < 0.3:
                options |= {"prealloc": True, "reserve": True}
            elif rng.random() < 0.3:
                options |= {"policy": "bind", "host-nodes": [0]}
            answer = add(monitor, f"m{step}", pages, **options)
            if "error" in answer:
                refused += 1
                assert "can't be committed" in refusal(answer) or "memory" in refusal(answer)
            else:
                made += 1
                there[f"m{step}"] = pages, share
            continue
        if not there:
            continue
        id = rng.choice(list(there))
        pages, share = there[id]
        at = rng.randrange(pages) * HUGE
        if what == "del":
            del there[id]
            assert monitor.execute("object-del", {"id": id}) == {"return": {}}, context
        elif what == "discard":
            monitor.execute("x-memdev-discard", {"id": id, "offset": at, "length": HUGE})
        elif what == "write" or not share:
            write: dict[str, JSON] = {"id": id, "offset": at, "data": "AAAA"}
            assert monitor.execute("x-memdev-write", write) == {"return": {}}, context
        else:
            with open(of(monitor, server, id), "r+b") as file:
                words = [
                    sys.executable,
                    "-c",
                    TOUCH,
                    str(file.fileno()),
                    str(pages * HUGE),
                    str(at),
                ]
                done = subprocess.run(words, pass_fds=(file.fileno(),), check=False)
                assert done.returncode == 0, context
    assert refused
    assert made
    assert hugepage_state()["Free"] >= hugepage_state()["Rsvd"]


def of(monitor: Monitor, server: Server, id: str) -> str:
    """A path of the memory's file."""
    answer = monitor.execute("x-memdev-export", {"id": id})
    found: str = answer["return"]["path"]
    return found


def test_bad_values(start_memd: Callable[..., Server]) -> None:
    command = [sys.executable, "-m", "memd", "--commit", "sometimes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Parameter 'commit' does not accept value 'sometimes'" in done.stderr
