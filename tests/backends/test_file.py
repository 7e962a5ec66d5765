from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import pytest

from memd import backends
from memd.errors import QMPError
from memd.hostmem.region import LARGE
from memd.json_types import JSON
from memd.qom import Tree
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.conftest import need_shm
from tests.differential.kernel import descriptors
from tests.hostmem.smaps import row_of
from tests.stepping import Running, close_all


@pytest.fixture
def path(directory: Path) -> Path:
    """A file of 1 MiB."""
    path = directory / "f"
    path.write_bytes(b"memd" * (MIB // 4))
    return path


def write(address: int, data: bytes) -> bool:
    """Write to this process's memory as a debugger would not: protections count."""
    import ctypes

    class IoVec(ctypes.Structure):
        _fields_ = (("base", ctypes.c_size_t), ("length", ctypes.c_size_t))

    buffer = ctypes.create_string_buffer(data, len(data))
    local = IoVec(ctypes.addressof(buffer), len(data))
    remote = IoVec(address, len(data))
    libc = ctypes.CDLL(None)
    libc.process_vm_writev.restype = ctypes.c_ssize_t
    done: int = libc.process_vm_writev(
        os.getpid(), ctypes.byref(local), 1, ctypes.byref(remote), 1, 0
    )
    return done == len(data)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("rom", ["auto", "on", "off"])
def test_what_a_write_does(tree: Tree, path: Path, rom: str, readonly: bool, share: bool) -> None:
    options = {"size": MIB, "mem_path": str(path), "rom": rom, "readonly": readonly, "share": share}
    before = path.read_bytes()
    try:
        add(tree, "file", **options)
    except QMPError:
        assert (rom == "on" and not readonly) or (rom == "off" and readonly and share)
        return
    is_rom = readonly and rom != "off"
    assert get(tree, "rom") == ("on" if is_rom else "off")
    region = region_of(tree)
    row = row_of(region.address)
    assert row is not None
    assert row.permissions == f"r{'-' if is_rom else 'w'}-{'s' if share else 'p'}"
    mode = os.O_RDONLY if readonly else os.O_RDWR
    flags = int(
        next(
            line.split()[1]
            for line in Path(f"/proc/self/fdinfo/{region.fd}").read_text().splitlines()
            if line.startswith("flags:")
        ),
        8,
    )
    assert flags & os.O_ACCMODE == mode
    assert write(region.address, b"x") is not is_rom
    assert path.read_bytes() == (b"x" + before[1:] if share and not readonly else before)


@need_shm
def test_what_is_refused_opens_nothing(tree: Tree) -> None:
    """Not even a directory on a tmpfs that is known, which is opened on the event loop."""
    with tempfile.TemporaryDirectory(prefix="memd-test-", dir="/dev/shm") as place:
        add(tree, "file", size=MIB, mem_path=f"{place}/f")
        delete(tree)
        before = descriptors(os.getpid())
        text = refusal(lambda: add(tree, "file", size=MIB, mem_path=f"{place}/f", rom="on"))
        assert "rom" in text
        assert descriptors(os.getpid()) <= before


def test_defaults(tree: Tree, path: Path) -> None:
    add(tree, "file", size=MIB, mem_path=str(path))
    names = ("mem-path", "offset", "align", "readonly", "rom", "pmem", "discard-data", "share")
    assert {name: get(tree, name) for name in names} == {
        "mem-path": str(path),
        "offset": 0,
        "align": 0,
        "readonly": False,
        "rom": "off",
        "pmem": False,
        "discard-data": False,
        "share": False,
    }


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("align", (0, 3, "x"), "cannot change property 'align' of memory-backend-file"),
        ("offset", (0, 4096, "x"), "cannot change property 'offset' of memory-backend-file"),
        ("mem-path", ("", "/x"), "cannot change property 'mem-path' of memory-backend-file"),
        ("mem-path", (3,), "Invalid parameter type for 'mem-path', expected: string"),
        ("rom", ("on", "auto", "zz"), "cannot change property 'rom' of memory-backend-file."),
        ("readonly", (True, False), "cannot change property 'readonly' of memory-backend-file."),
        ("readonly", (3,), "Invalid parameter type for 'readonly', expected: boolean"),
        ("pmem", (True, False), "cannot change property 'pmem' of memory-backend-file."),
        ("pmem", (3,), "Invalid parameter type for 'pmem', expected: boolean"),
        ("discard-data", (3,), "Invalid parameter type for 'discard-data', expected: boolean"),
    ],
)
def test_what_may_not_change(
    tree: Tree, path: Path, name: str, values: tuple[JSON, ...], text: str
) -> None:
    add(tree, "file", size=MIB, mem_path=str(path))
    before = get(tree, name)
    for value in values:
        assert refusal(lambda value=value: change(tree, name, value)) == text  # type: ignore[misc]
    assert get(tree, name) == before


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("no/f", "No such file or directory"), ("f/x", "Not a directory"), ("link", "")],
)
def test_what_can_not_be_opened(
    tree: Tree, path: Path, name: str, reason: str, readonly: bool
) -> None:
    (path.parent / "link").symlink_to("nowhere")
    if not reason:
        reason = "No such file or directory" if readonly else "File exists"
    target = path.parent / name
    assert (
        refusal(lambda: add(tree, "file", size=MIB, mem_path=str(target), readonly=readonly))
        == f"can't open backing store {target} for guest RAM: {reason}"
    )
    assert sorted(os.listdir(path.parent)) == ["f", "link"]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_a_fifo_does_not_hang(tree: Tree, directory: Path, share: bool, readonly: bool) -> None:
    os.mkfifo(directory / "fifo")
    options = {"mem_path": str(directory / "fifo"), "readonly": readonly, "share": share}
    assert refusal(lambda: add(tree, "file", size=MIB, **options)) == (
        "unable to map backing store for guest RAM: No such device"
    )


def test_a_new_file_is_given_its_size_and_stays(tree: Tree, directory: Path) -> None:
    path = directory / "new"
    add(tree, "file", size=MIB, mem_path=str(path), offset=4096)
    assert path.stat().st_size == MIB + 4096
    delete(tree)
    assert path.stat().st_size == MIB + 4096


def test_an_unnamed_file(tree: Tree, directory: Path) -> None:
    add(tree, "file", size=MIB, mem_path=str(directory))
    assert os.fstat(region_of(tree).fd).st_size == MIB
    assert get(tree, "mem-path") == str(directory)
    assert os.listdir(directory) == []


@pytest.mark.parametrize("align", [0, 4096, 2 * MIB, 16 * MIB])
@pytest.mark.parametrize("offset", [0, 8192])
def test_align_and_offset(tree: Tree, path: Path, offset: int, align: int) -> None:
    add(tree, "file", size=MIB // 2, mem_path=str(path), align=align, offset=offset)
    row = row_of(region_of(tree).address)
    assert row is not None
    assert (row.offset, row.start % (align or 4096)) == (offset, 0)
    assert (get(tree, "align"), get(tree, "offset")) == (align, offset)


HINT = (
    "Consider opening the backing store read-only but still creating writable RAM using"
    " '-object memory-backend-file,readonly=on,rom=off...' (see \"VM templating\""
    " documentation)"
)


@pytest.mark.parametrize(
    ("name", "mode", "share", "hinted"),
    [
        ("f", 0o444, False, True),
        ("f", 0o444, True, False),
        ("f", 0o000, False, False),
        ("directory", 0o555, False, False),
        ("directory/new", 0o555, False, False),
    ],
)
def test_the_hint(directory: Path, name: str, mode: int, share: bool, hinted: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("not here: root")
    directory.chmod(0o755)
    if name == "f":
        (directory / "f").touch()
        (directory / "f").chmod(mode)
    else:
        (directory / "directory").mkdir(mode)
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setuid(65534)
            tree = Tree()
            backends.register(tree)
            add(tree, "file", size=MIB, mem_path=str(directory / name), share=share)
        except QMPError as error:
            expected = (
                f"can't open backing store {directory / name} for guest RAM: Permission denied"
            )
            if error.desc == expected:
                status = 1 if error.hint == HINT else 0 if error.hint is None else 98
        finally:
            os._exit(status)
    _pid, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == int(hinted)


@pytest.mark.parametrize(
    ("share", "readonly", "discard"),
    list(itertools.product((False, True), (False, True), (False, True))),
)
@pytest.mark.parametrize("later", [False, True])
def test_discard_data(
    tree: Tree, path: Path, share: bool, readonly: bool, discard: bool, later: bool
) -> None:
    options = {"share": share, "readonly": readonly, "offset": 4096}
    if not later:
        options["discard_data"] = discard
    add(tree, "file", size=8192, mem_path=str(path), **options)
    if later:
        change(tree, "discard-data", discard)
    assert get(tree, "discard-data") is discard
    before = path.read_bytes()
    delete(tree)
    hole = before[:4096] + bytes(8192) + before[12288:]
    assert path.read_bytes() == (hole if share and discard and not readonly else before)


def test_discard_data_of_much(tree: Tree, directory: Path) -> None:
    path = directory / "f"
    size = LARGE + 4096
    with path.open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(size)
    add(tree, "file", size=size, mem_path=str(path), share=True, discard_data=True)
    slow = Running(tree.objects.delete("m0"))
    assert slow.wait is not None
    slow.finish()
    assert path.stat().st_blocks == 0


def test_discard_data_at_the_end(tree: Tree, path: Path) -> None:
    add(tree, "file", size=MIB, mem_path=str(path), share=True, discard_data=True)
    close_all(tree)
    assert (path.stat().st_size, path.stat().st_blocks) == (MIB, 0)


@pytest.mark.parametrize("share", [False, True])
def test_pmem_on_an_ordinary_file(
    tree: Tree, path: Path, share: bool, caplog: pytest.LogCaptureFixture
) -> None:
    add(tree, "file", size=MIB, mem_path=str(path), pmem=True, share=share)
    expected = [
        f"requesting persistence across crashes for backend file {path} failed. Proceeding"
        " without persistence, data might become corrupted in case of host crash.",
        "Using non DAX backing file with 'pmem=on' option is deprecated",
    ]
    assert [record.getMessage() for record in caplog.records] == (expected if share else [])


def test_a_path_that_is_no_text_is_logged_as_text(
    tree: Tree, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers of log records may encode them."""
    add(tree, "file", size=MIB, mem_path=f"{directory}/nul\0", pmem=True, share=True)
    line = caplog.records[0].getMessage()
    assert line.encode().startswith(
        rb"requesting persistence across crashes for backend file %b/nul\xc0\x80 failed."
        % bytes(directory)
    )


def test_a_size_that_can_not_be_given_is_logged(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    add(tree, "file", size=MIB, mem_path="/dev/zero")
    assert [record.getMessage() for record in caplog.records] == ["ftruncate: Invalid argument"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"rom": "on", "align": 3},
            "property 'rom' = 'on' is not supported with 'readonly' = 'off'",
        ),
        (
            {"rom": "off", "readonly": True, "share": True},
            "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on'",
        ),
        (
            {"size": 1 << 30, "align": 3},
            "m0 backing store size 0x100000 is too small for 'size' option 0x40000000 plus"
            " 'offset' option 0x0",
        ),
        ({"align": 3}, "alignment 0x3 must be multiples of page size 0x1000"),
        ({"align": 0x3000}, "alignment 0x3000 must be a power of two"),
        ({"offset": 100, "size": 4096}, "offset 0x64 must be multiples of page size 0x1000"),
        (
            {"size": MIB - 1, "policy": "bind"},
            "backend 'memory-backend-file' memory size must be multiple of 4 KiB",
        ),
        (
            {"size": (1 << 64) - 1},
            "memory size 0x0 must be equal to or larger than page size 0x1000",
        ),
        (
            {"offset": (1 << 64) - 4096},
            "unable to map backing store for guest RAM: Value too large for defined data type",
        ),
        ({"align": 1 << 50}, "unable to map backing store for guest RAM: Cannot allocate memory"),
        ({"mem_path": "/dev/null"}, "unable to map backing store for guest RAM: No such device"),
    ],
)
def test_refusals(tree: Tree, path: Path, options: dict[str, JSON], text: str) -> None:
    given = {"size": MIB, "mem_path": str(path), **options}
    assert refusal(lambda: add(tree, "file", **given)) == text


def test_a_missing_file_is_not_kept_when_it_does_not_fit(tree: Tree, directory: Path) -> None:
    for options in (
        {"align": 3},
        {"offset": 3},
        {"size": 5},
        {"policy": "bind"},
        {"align": 1 << 50},
    ):
        given = {"size": MIB, "mem_path": str(directory / "new"), **options}
        refusal(lambda given=given: add(tree, "file", **given))  # type: ignore[misc]
        assert os.listdir(directory) == []
