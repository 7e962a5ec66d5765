"""What explain says is what object-add does, and explaining changes nothing."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memd.backends.base import MemoryBackend
from memd.backends.explain import explain
from memd.errors import QMPError
from memd.hostmem import capacity, kvm, libc
from memd.json_types import JSON
from memd.qom import OBJECT, ObjectType, Tree, UserCreatable
from memd.work import run_here
from tests.backends.doing import MIB, add, delete, region_of
from tests.conftest import NOT_HERE, alone, need_shm, need_sys
from tests.differential.kernel import descriptors, files, regions
from tests.hostmem.made import StrictHost
from tests.hostmem.smaps import row_of
from tests.kvm import needs_guest_memfd
from tests.seeds import seed_of_run

PAGE = libc.PAGE_SIZE
KINDS = ("ram", "file", "memfd", "shm", "guest-memfd")


def told(tree: Tree, options: dict[str, JSON], deny: bool = False) -> dict[str, Any]:
    """The explanation of object-add with these arguments."""
    return run_here(explain(tree, dict(options), deny))


def arguments(kind: str, **options: JSON) -> dict[str, JSON]:
    """Of object-add; underscores stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    return {"qom-type": f"memory-backend-{kind}", "id": "m0", **named}


@contextmanager
def unchanged(tree: Tree, directory: Path) -> Iterator[None]:
    """A context in which nothing changes that explaining might change."""

    def world() -> tuple[object, int]:
        found = files(directory)
        return (
            descriptors(here),
            regions(here, Path("/nowhere")),
            Path("/proc/self/maps").read_text(encoding="utf-8").count("memory-backend"),
            {name: replace(file, allocated=0) for name, file in found.items()},
            sorted(tree.objects.children),
        ), sum(file.allocated for file in found.values())

    here = os.getpid()
    before, allocated = world()
    yield
    after, now_allocated = world()
    assert after == before
    # The kernel may take pages of a tmpfs that are swapped out off the count.
    assert now_allocated <= allocated


def happened(tree: Tree, options: dict[str, JSON]) -> QMPError | None:
    """What object-add comes to: the error, or None with the object there."""
    try:
        run_here(tree.objects.create(dict(options)))
    except QMPError as error:
        return error
    return None


def holds(tree: Tree, options: dict[str, JSON], answer: dict[str, Any]) -> None:
    """See that object-add does what was told of it."""
    error = happened(tree, options)
    if error is not None:
        expected = {"class": error.error_class, "desc": error.desc}
        if error.hint is not None:
            expected["hint"] = error.hint
        assert answer["verdict"] == "fails", (options, expected)
        assert answer["error"] == expected
        return
    try:
        assert answer["verdict"] == "works", (options, answer["text"])
        assert "error" not in answer
        backend = tree.resolve("/objects/m0")
        if isinstance(backend, MemoryBackend):
            is_as_told(tree, answer)
    finally:
        run_here(tree.objects.delete("m0"))


def is_as_told(tree: Tree, answer: dict[str, Any]) -> None:
    """See that memory is mapped, and its file opened, as was told."""
    region, mapping = region_of(tree), answer["mapping"]
    row = row_of(region.address)
    assert row is not None
    writable = "PROT_WRITE" in mapping["protection"]
    shared = "MAP_SHARED" in mapping["flags"]
    assert row.permissions == f"r{'w' if writable else '-'}-{'s' if shared else 'p'}"
    # Of shared ordinary memory the kernel forgets that nothing is reserved.
    if "nr" in row.flags:
        assert "MAP_NORESERVE" in mapping["flags"]
    elif not shared and writable:
        assert "MAP_NORESERVE" not in mapping["flags"]
    assert row.offset == mapping["offset"]
    assert region.length == mapping["length"]
    assert region.page_size == mapping["page-size"]
    assert region.address % mapping["align"] == 0
    assert ("MAP_ANONYMOUS" in mapping["flags"]) == (region.fd < 0) == ("file" not in answer)
    denied, private = not writable, writable and not shared
    assert answer["writes"] == ("denied" if denied else "private" if private else "file")
    if region.fd < 0:
        return
    file, status = answer["file"], os.fstat(region.fd)
    flags = os.O_RDONLY if "O_RDONLY" in file["open-flags"] else os.O_RDWR
    assert _access_mode(region.fd) == flags
    if stat.S_ISREG(status.st_mode):
        assert status.st_size == file.get("gets-size", file["size"])


def _access_mode(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as rows:
        found = next(row for row in rows if row.startswith("flags:"))
    return int(found[6:], 8) & os.O_ACCMODE


@pytest.fixture
def explained(tree: Tree, directory: Path) -> Callable[[dict[str, JSON]], dict[str, Any]]:
    """Explains without changing anything, and compares what object-add does then."""

    def check(options: dict[str, JSON]) -> dict[str, Any]:
        with unchanged(tree, directory):
            answer = told(tree, options)
        if answer["verdict"] != "unknown":
            holds(tree, options, answer)
        return answer

    return check


PLACES = (
    *("full", "half", "empty", "missing", "folder", "none/missing", "missing/", "", ".", "full/x"),
    *("fifo", "null", "zero", "dangling", "loop", "link", "deep", "long" * 70, "nul\0", "proc"),
)


def make_files(directory: Path) -> None:
    """Files of every kind for `mem-path` to lead to."""
    (directory / "full").write_bytes(b"memd" * (MIB // 4))
    (directory / "half").write_bytes(b"x" * 100_000)
    (directory / "empty").touch()
    (directory / "folder").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "loop").symlink_to("loop")
    (directory / "link").symlink_to("full")
    (directory / "deep").symlink_to("folder")
    (directory / "null").symlink_to("/dev/null")
    (directory / "zero").symlink_to("/dev/zero")
    (directory / "proc").symlink_to("/proc/version")


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


SIZES = st.sampled_from(
    [
        *(PAGE, 16 * PAGE, MIB, 1, PAGE + 1, 4 * MIB, 0, 3 * MIB, 1 << 40, 1 << 46),
        *(1 << 47, 1 << 62, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1),
    ]
)
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "share": maybe(st.booleans()),
    "prealloc": maybe(st.booleans()),
    "reserve": maybe(st.booleans()),
    "dump": maybe(st.booleans()),
    "merge": maybe(st.booleans()),
    "prealloc-threads": maybe(st.sampled_from([1, 2, 0])),
    "policy": maybe(st.sampled_from(["default", "bind", "preferred", "interleave"])),
    "host-nodes": maybe(st.sampled_from([[], [0], [127], [0, 127], [999]])),
    "x-use-canonical-path-for-ramblock-id": maybe(st.booleans()),
}
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "file": {
        "mem-path": st.sampled_from(PLACES),
        "readonly": maybe(st.booleans()),
        "rom": maybe(st.sampled_from(["auto", "on", "off"])),
        "offset": maybe(st.sampled_from([0, PAGE, 100, MIB, (1 << 63) - PAGE, (1 << 64) - PAGE])),
        "align": maybe(st.sampled_from([0, PAGE, 3, 3 * PAGE, 2 * MIB, 1 << 46, 1 << 63])),
        "pmem": maybe(st.booleans()),
    },
    "memfd": {
        "hugetlb": maybe(st.just(False)),
        "hugetlbsize": maybe(st.sampled_from([0, 1, 2, 3, 6, PAGE, 2 * MIB, 1 << 63])),
        "seal": maybe(st.booleans()),
    },
}


@st.composite
def options_of(draw: st.DrawFn) -> dict[str, JSON]:
    kind = draw(st.sampled_from(KINDS))
    size = draw(SIZES)
    options: dict[str, JSON] = {"qom-type": f"memory-backend-{kind}", "id": "m0", "size": size}
    # Most options are left out, so that most combinations get somewhere.
    chosen = {**OWN.get(kind, {})}
    for name in draw(st.lists(st.sampled_from(sorted(COMMON)), max_size=3, unique=True)):
        chosen[name] = COMMON[name]
    for name, values in chosen.items():
        value = draw(values)
        if value is not None:
            options[name] = value
    if options.get("prealloc") and size > 4 * MIB:
        # That may really be done.
        del options["prealloc"]
    return options


@need_shm
@need_sys
@given(options_of())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(arguments("file", size=MIB, mem_path="full", readonly=True, rom="off"))
@example(arguments("file", size=MIB, mem_path="full", share=True, prealloc=True))
@example(arguments("file", size=MIB, mem_path="empty", readonly=True, prealloc=True))
@example(arguments("file", size=MIB, mem_path="dangling"))
@example(arguments("file", size=MIB, mem_path="null"))
@example(arguments("file", size=MIB, mem_path="zero", share=True, prealloc=True))
@example(arguments("file", size=1 << 40, mem_path="zero", share=True))
@example(arguments("file", size=1 << 40, mem_path="zero", share=True, host_nodes=[127]))
@example(arguments("file", size=1 << 46, mem_path="missing"))
@example(arguments("file", size=1 << 46, mem_path="empty", reserve=False))
@example(arguments("file", size=MIB, mem_path="missing", offset=(1 << 63) - PAGE))
@example(arguments("file", size=PAGE, mem_path="fifo", offset=(1 << 64) - PAGE))
@example(arguments("ram", size=MIB, policy="bind", host_nodes=[0, 127]))
@example(arguments("ram", size=1 << 46, reserve=False))
@example(arguments("ram", size=PAGE + 1, share=True))
def test_what_is_explained_happens(
    tree: Tree, explained: Callable[[dict[str, JSON]], dict[str, Any]], options: dict[str, JSON]
) -> None:
    # Nobody changes how many huge pages there are between the answer and the attempt.
    with alone("hugepages"), tempfile.TemporaryDirectory(prefix="memd-test-") as name:
        directory = Path(name)
        make_files(directory)
        if "mem-path" in options:
            options = {**options, "mem-path": f"{directory}/{options['mem-path']}"}
        with unchanged(tree, directory):
            answer = told(tree, options)
        if answer["verdict"] != "unknown":
            holds(tree, options, answer)
        suggestion = answer.get("suggestion")
        if suggestion is not None:
            assert suggestion["qom-type"] == suggestion["options"]["qom-type"]
            assert happened(tree, suggestion["options"]) is None
            run_here(tree.objects.delete("m0"))
    # The data says what the words do.
    assert answer["text"][0].startswith("It ")
    warned = [line for line in answer["text"] if line.startswith("Warning: ")]
    assert warned == [f"Warning: {each['text']}" for each in answer["warnings"]]


@pytest.mark.parametrize("id", ["9a", "", "a/b"])
def test_bad_ids(explained: Callable[[dict[str, JSON]], dict[str, Any]], id: str) -> None:
    answer = explained({**arguments("ram", size=MIB), "id": id})
    assert answer["error"]["desc"] == "Parameter 'id' expects an identifier"
    assert answer["warnings"] == []


def test_a_taken_id(tree: Tree) -> None:
    add(tree, "ram", size=MIB)
    answer = told(tree, arguments("memfd", size=MIB))
    assert answer["error"]["desc"] == (
        "attempt to add duplicate property 'm0' to object (type 'container')"
    )
    delete(tree)
    assert told(tree, arguments("memfd", size=MIB))["verdict"] == "works"


def test_an_id_is_not_taken_by_it(tree: Tree) -> None:
    assert told(tree, arguments("ram", size=MIB))["verdict"] == "works"
    add(tree, "ram", size=MIB)


@pytest.mark.parametrize("name", ["memory-backend-epc", "memory-backend"])
def test_types_that_can_not_be_made(tree: Tree, name: str) -> None:
    answer = told(tree, {"qom-type": name, "id": "m0"})
    assert answer["error"] == {"class": "GenericError", "desc": f"invalid object type: {name}"}


def test_what_is_no_memory(tree: Tree) -> None:
    """Only of threads it is known what they come to."""
    tree.add_type(ObjectType("other", OBJECT, factory=UserCreatable))
    answer = told(tree, {"qom-type": "other", "id": "m0"})
    assert answer["verdict"] == "unknown"
    assert "mapping" not in answer


def test_a_link_that_leads_nowhere(tree: Tree) -> None:
    answer = told(tree, arguments("ram", size=MIB, prealloc_context="nope"))
    assert answer["error"] == {"class": "DeviceNotFound", "desc": "Device 'nope' not found"}


@need_sys
@pytest.mark.parametrize(
    "options",
    [
        *({}, {"cpu-affinity": [0]}, {"cpu-affinity": [9999]}, {"node-affinity": [0]}),
        *({"cpu-affinity": []}, {"node-affinity": [100]}),
    ],
)
def test_thread_contexts(
    explained: Callable[[dict[str, JSON]], dict[str, Any]], options: dict[str, JSON]
) -> None:
    answer = explained({"qom-type": "thread-context", "id": "m0", **options})
    assert "mapping" not in answer


def test_a_file_that_may_only_be_read(
    directory: Path, explained: Callable[[dict[str, JSON]], dict[str, Any]]
) -> None:
    """The hint for the log is told, and taken up."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    directory.chmod(0o755)
    path = directory / "template"
    path.write_bytes(b"x" * MIB)
    path.chmod(0o444)
    # Too large for the comparison to read it.
    with open(directory / "secret", "wb") as secret:
        secret.truncate(9 * MIB)
    (directory / "secret").chmod(0)
    # Once as root, so that all modules are there: another user may not read them.
    explained(arguments("file", size=MIB, mem_path=str(path)))
    explained(arguments("file", size=MIB, mem_path=str(directory / "none" / "x")))
    os.seteuid(65534)
    try:
        answer = explained(arguments("file", size=MIB, mem_path=str(path)))
        assert answer["error"]["desc"].endswith("for guest RAM: Permission denied")
        assert "readonly=on,rom=off" in answer["error"]["hint"]
        assert answer["error"]["hint"] in answer["text"][1]
        better = answer["suggestion"]["options"]
        assert (better["readonly"], better["rom"]) == (True, "off")
        explained(better)
        for kinds in ({}, {"readonly": True}):
            hidden = arguments("file", size=MIB, mem_path=str(directory / "secret"), **kinds)
            assert "hint" not in explained(hidden)["error"]
        explained(arguments("file", size=MIB, mem_path=str(directory / "new")))
        explained(arguments("file", size=MIB, mem_path=str(directory)))
    finally:
        os.seteuid(0)


def test_file_systems(
    directory: Path,
    mount: Callable[..., None],
    explained: Callable[[dict[str, JSON]], dict[str, Any]],
) -> None:
    small, fixed = directory / "small", directory / "fixed"
    mount("tmpfs", small, "size=256k")
    (small / "there").write_bytes(b"x" * PAGE)
    for share in (True, False):
        for size in (64 << 10, 512 << 10):
            file = arguments("file", size=size, mem_path=str(small / "new"), share=share)
            answer = explained(file)
            assert answer["verdict"] == "works"
            about = {each["about"] for each in answer["warnings"]}
            assert ("space" in about) == (size > 256 << 10)
            (small / "new").unlink()
            answer = explained({**file, "prealloc": True})
            assert answer["verdict"] == ("works" if size < 256 << 10 else "fails")
            (small / "new").unlink(missing_ok=True)
    mount("tmpfs", fixed, "ro")
    answer = explained(arguments("file", size=MIB, mem_path=str(fixed / "new")))
    assert answer["error"]["desc"].endswith("Read-only file system")


@pytest.mark.parametrize("share", [True, False])
def test_huge_pages(
    hugepages: Callable[[int], None],
    explained: Callable[[dict[str, JSON]], dict[str, Any]],
    share: bool,
) -> None:
    hugepages(2)
    two = arguments("memfd", size=4 * MIB, hugetlb=True, share=share)
    answer = explained(two)
    assert answer["verdict"] == "works"
    assert answer["mapping"]["page-size"] == 2 * MIB
    assert answer["warnings"] == []
    answer = explained({**two, "size": 64 << 30})
    assert answer["error"]["desc"] == (
        "unable to map backing store for guest RAM: Cannot allocate memory"
    )
    assert "32768 huge pages of 2 MiB are wanted, and " in answer["warnings"][0]["text"]
    # Of ordinary pages a shared memfd may promise what it likes.
    assert ("suggestion" in answer) == share
    answer = explained({**two, "size": 64 << 30, "reserve": False})
    assert answer["verdict"] == "works"
    answer = explained({**two, "size": 3 * MIB})
    assert answer["suggestion"]["options"]["size"] == 4 * MIB
    for page in (PAGE, 2, 64 << 10, 1 << 40):
        answer = explained({**two, "hugetlbsize": page})
        assert answer["error"]["desc"].endswith("No such device")
        assert "2 MiB" in answer["warnings"][-1]["text"]


def test_huge_files(
    directory: Path,
    mount: Callable[..., None],
    hugepages: Callable[[int], None],
    explained: Callable[[dict[str, JSON]], dict[str, Any]],
) -> None:
    hugepages(4)
    place = directory / "huge"
    mount("hugetlbfs", place)
    for path in (place / "new", place):
        for size in (2 * MIB, 4 * MIB, 3 * MIB, PAGE, 1 << 40):
            for share in (True, False):
                explained(arguments("file", size=size, mem_path=str(path), share=share))
                (place / "new").unlink(missing_ok=True)
    # Pages that a file has already need not be set aside again.
    with open(place / "kept", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 * MIB)
    kept = arguments("file", size=8 * MIB, mem_path=str(place / "kept"), share=True)
    assert explained(kept)["verdict"] == "works"


@needs_guest_memfd
def test_guest_memfd(explained: Callable[[dict[str, JSON]], dict[str, Any]]) -> None:
    answer = explained(arguments("guest-memfd", size=MIB))
    assert answer["file"]["open-flags"] == list(kvm.FLAG_NAMES.values())
    assert answer["shareable"] == "descriptor"


@pytest.mark.parametrize("device", ["/nowhere/kvm", "/dev/null"])
def test_without_kvm(
    tree: Tree, explained: Callable[[dict[str, JSON]], dict[str, Any]], device: str
) -> None:
    tree.host.kvm_device = device
    answer = explained(arguments("guest-memfd", size=MIB))
    assert answer["error"]["desc"].startswith("can't create guest_memfd: ")
    assert answer["suggestion"]["qom-type"] == "memory-backend-memfd"


def test_what_only_trying_tells(tree: Tree) -> None:
    answer = told(tree, arguments("file", size=PAGE, mem_path="/proc/version", readonly=True))
    assert answer["verdict"] == "unknown"
    assert answer["text"][0].startswith("It may work, which only trying tells")


def test_memory_that_is_not_there(tree: Tree) -> None:
    # A mapping of more than memory and swap have is refused.
    with alone("swap"):
        # Of the machine's, a part is always in use.
        rows = capacity.meminfo()
        large = arguments("ram", size=(rows["MemTotal"] + rows["SwapTotal"]) // MIB * MIB)
        answer = told(tree, large)
        assert answer["verdict"] == "works"
        assert [each["about"] for each in answer["warnings"]] == ["memory"]
        assert told(tree, {**large, "prealloc": True})["verdict"] == "unknown"


def test_strict_overcommit(tree: Tree) -> None:
    """The rule itself is the machine's, and stays."""
    tree.host = StrictHost()
    answer = told(tree, arguments("ram", size=MIB, reserve=False))
    assert answer["error"]["desc"] == "cannot set up guest memory 'm0'"


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_limits_of_the_process(
    explained: Callable[[dict[str, JSON]], Any], directory: Path, kind: int
) -> None:
    """Of addresses, and of private memory that can be written."""
    path = directory / "f"
    path.touch()
    os.truncate(path, 1 << 40)
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (1 << 40, before[1]))
    try:
        for share in (True, False):
            explained(arguments("ram", size=1 << 40, share=share, reserve=False))
            options = arguments("file", size=1 << 40, mem_path=str(path), share=share)
            fails = explained({**options, "reserve": False})["verdict"] == "fails"
            assert fails == (kind == resource.RLIMIT_AS or not share)
    finally:
        resource.setrlimit(kind, before)


# What a file system, or chattr(1), denies


@pytest.fixture
def ext4(directory: Path) -> Iterator[Path]:
    """A small ext4, mounted from a file."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    image, place = directory / "image", directory / "ext4"
    place.mkdir()
    image.write_bytes(b"")
    os.truncate(image, 8 * MIB)
    for command in (
        ["mkfs.ext4", "-q", "-N", "16", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as lack:
            pytest.skip(f"needs e2fsprogs and mount: {lack}")
        if done.returncode:
            pytest.skip(f"{NOT_HERE}loop mounts of ext4: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_what_can_only_be_appended_to(
    ext4: Path,
    explained: Callable[[dict[str, JSON]], dict[str, Any]],
    append_only: Callable[[Path], None],
) -> None:
    """A file without a name is not made where the name that it has at first would stay."""
    (ext4 / "file").write_bytes(bytes(MIB))
    (ext4 / "folder").mkdir()
    for name in ("file", "folder"):
        append_only(ext4 / name)
    for name, readonly, text in (
        ("file", False, "Operation not permitted"),
        ("file", True, None),
        ("folder", False, "Operation not permitted"),
        ("folder/new", False, None),
    ):
        answer = explained(
            arguments("file", size=MIB, mem_path=str(ext4 / name), readonly=readonly)
        )
        assert answer["verdict"] == ("works" if text is None else "fails")
        assert text is None or text in answer["error"]["desc"]
    assert os.listdir(ext4 / "folder") == ["new"]


def test_no_inodes_left(ext4: Path, explained: Callable[[dict[str, JSON]], dict[str, Any]]) -> None:
    for number in range(64):
        try:
            (ext4 / f"f{number}").touch()
        except OSError:
            break
    for path in ("new", ""):
        answer = explained(arguments("file", size=MIB, mem_path=str(ext4 / path)))
        assert "No space left on device" in answer["error"]["desc"]


@pytest.mark.parametrize("share", [True, False])
def test_a_swap_file(
    ext4: Path, explained: Callable[[dict[str, JSON]], dict[str, Any]], share: bool
) -> None:
    path = ext4 / "swap file"
    path.write_bytes(bytes(2 * MIB))
    path.chmod(0o600)
    # Pages of other tests' processes would come into it.
    with alone("swap"):
        for command in (["mkswap", str(path)], ["swapon", str(path)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{NOT_HERE}swap files: {done.stderr.strip()}")
        try:
            answer = explained(arguments("file", size=MIB, mem_path=str(path), share=share))
            assert answer["verdict"] == ("fails" if share else "works")
            assert not share or "Text file busy" in answer["error"]["desc"]
        finally:
            subprocess.run(["swapoff", str(path)], check=True)


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "hugetlbfs", "ext4"])
def test_on_every_file_system(
    request: pytest.FixtureRequest,
    directory: Path,
    explained: Callable[[dict[str, JSON]], dict[str, Any]],
    kind: str,
) -> None:
    """Options at random, printed where they go wrong."""
    place = directory / "place"
    if kind == "ext4":
        place = request.getfixturevalue("ext4")
    else:
        options = {"tmpfs": "size=4m", "hugetlbfs": "pagesize=2M", "overlay": ""}[kind]
        if kind == "overlay":
            for name in ("lower", "upper", "work"):
                (directory / name).mkdir()
            options = (
                f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
            )
        if kind == "hugetlbfs":
            request.getfixturevalue("hugepages")(2)
        request.getfixturevalue("mount")(kind, place, options)
    (place / "empty").touch()
    (place / "folder").mkdir()
    (place / "full").touch()
    os.truncate(place / "full", 2 * MIB)
    seed = seed_of_run()
    chance = random.Random(seed)
    for _ in range(30):
        chosen: dict[str, JSON] = {
            "size": chance.choice([PAGE, MIB, 2 * MIB, 4 * MIB, 16 * MIB, 1 << 40]),
            "mem-path": str(place / chance.choice(["empty", "full", "new", "folder", "none/new"])),
        }
        for name in ("share", "readonly", "prealloc", "reserve"):
            if chance.random() < 0.4:
                chosen[name] = chance.random() < 0.5
        if chosen["size"] > 4 * MIB:
            chosen.pop("prealloc", None)
        if chance.random() < 0.2:
            chosen["offset"] = chance.choice([PAGE, 2 * MIB])
        try:
            explained({"qom-type": "memory-backend-file", "id": "m0", **chosen})
        except AssertionError as wrong:
            raise AssertionError(f"MEMD_SEED={seed}: {chosen}") from wrong
        (place / "new").unlink(missing_ok=True)
        os.truncate(place / "empty", 0)
        # What was written gets its blocks now, and not while the next one is explained.
        with (place / "full").open("rb") as full:
            os.fsync(full.fileno())
