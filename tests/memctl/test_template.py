from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side, settle
from tests.differential.kernel import descriptors
from tests.differential.server import TREE, Monitor, Server, memd_argv, qemu_argv, running
from tests.memctl.conftest import Memctl, argv, refusal
from tests.memctl.fakes import Peer, Talk, interrupt, knows_nothing
from tests.ports import free_port
from tests.users import need_root

MIB = 1 << 20


def image(tmp_path: Path, size: int = 5 * MIB) -> Path:
    """A file with holes, and something in between."""
    path = tmp_path / "image"
    data = bytearray(size)
    data[:12] = b"The template"
    data[3 * MIB : 3 * MIB + 100] = os.urandom(100)
    path.write_bytes(data)
    return path


def test_from_an_image(memctl: Memctl, memd: Side, tmp_path: Path) -> None:
    source, path = image(tmp_path), tmp_path / "template"
    options = f"size=8M,mem-path={path},share=off,readonly=on,rom=off"
    assert memctl.out("template", "make", str(path), "--size", "8M", "--from", str(source)) == (
        f"{path}: a template of 8 MiB (8388608 bytes), mode 0444.\n"
        "Clones in QEMU:\n"
        "  qemu-system-x86_64 -m 8M -machine q35,memory-backend=ram"
        f" -object memory-backend-file,id=ram,{options} ...\n"
        "Clones in memd:\n"
        f"  memctl add memory-backend-file,id=clone,{options}\n"
    )
    assert path.read_bytes() == source.read_bytes() + bytes(3 * MIB)
    there = path.stat()
    assert stat.S_IMODE(there.st_mode) == 0o444
    # The kernel may make 2 MiB at once of what is touched.
    assert there.st_blocks * 512 < 8 * MIB, "zeroes are left out"
    assert memd.regions() == []


def test_a_clone_in_memd(memctl: Memctl, tmp_path: Path) -> None:
    source, path = image(tmp_path), tmp_path / "a, template"
    found = memctl.data("template", "make", str(path), "--size", "8M", "--from", str(source))
    assert (found["filename"], found["size"], found["mode"]) == (str(path), 8 * MIB, "0444")
    (line,) = shlex.split(found["memd"])
    memctl.out("add", line)
    assert memctl.out("read", "--raw", "clone", "0", "12") == "The template"
    assert memctl.data("show", "clone")["stat"]["share"] is False
    memctl.out("del", "clone")


def test_a_clone_in_qemu(memctl: Memctl, tmp_path: Path, directory: Path) -> None:
    """The line as it is printed, and a machine with it sees the template's bytes."""
    qemu_argv()
    path = tmp_path / "template"
    data = tmp_path / "data"
    # Where firmware writes nothing before the machine runs.
    data.write_bytes(bytes(8 * MIB) + b"The template")
    out = memctl.out("template", "make", str(path), "--size", "16M", "--from", str(data))
    (line,) = [line for line in out.splitlines() if line.startswith("  qemu-system-x86_64 ")]
    argv = shlex.split(line.removesuffix(" ..."))
    argv += ["-accel", "tcg", "-nodefaults", "-display", "none", "-S"]
    with running("qemu", argv, directory) as server:
        monitor = Monitor(server.path)
        command = {"command-line": "xp /12bc 0x800000"}
        answer = monitor.execute("human-monitor-command", command)["return"]
        monitor.close()
        maps = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
    assert "".join(answer.split("'")[1::2]) == "The template", answer
    (row,) = [row for row in maps.splitlines() if row.endswith(str(path))]
    assert " rw-p " in row


def test_of_a_backend(memctl: Memctl, tmp_path: Path) -> None:
    """It is saved; memory holds secrets, and so nobody else may read it."""
    path = tmp_path / "template"
    memctl.out("add", "ram,id=vm0,size=1025k")
    data = tmp_path / "data"
    data.write_bytes(b"The template")
    memctl.out("write", "vm0", "64k", str(data))
    found = memctl.data("template", "make", str(path), "--of", "vm0")
    memctl.out("del", "vm0")
    assert (found["size"], found["mode"]) == (1028 << 10, "0400")
    content = path.read_bytes()
    assert len(content) == 1028 << 10
    assert content[64 << 10 :][:12] == b"The template"


def test_zeroes(memctl: Memctl, tmp_path: Path) -> None:
    path = tmp_path / "template"
    before = os.umask(0o027)
    try:
        found = memctl.data("template", "make", str(path), "--size", "1M")
    finally:
        os.umask(before)
    assert path.read_bytes() == bytes(MIB)
    assert found["mode"] == "0440"


def test_from_standard_input(memctl: Memctl, tmp_path: Path) -> None:
    path = tmp_path / "template"
    data = image(tmp_path).read_bytes()
    words = ["template", "make", str(path), "--size", "5M", "--from", "-"]
    assert memctl.fed(data, *words)[0] == 0
    assert path.read_bytes() == data
    words = ["template", "make", f"{path}2", "--size", "4M", "--from", "-"]
    text = refusal(memctl.fed(data, *words))
    assert text == "there is more to come than the 4194304 bytes of the template"
    assert not Path(f"{path}2").exists()


def test_what_is_refused(memctl: Memctl, memd: Side, tmp_path: Path) -> None:
    """Nothing of it stays."""
    source, path = image(tmp_path), tmp_path / "template"
    new = str(path)
    text = memctl.error("template", "make", new, "--size", "4M", "--from", str(source))
    assert text == f"{source} has 5242880 bytes, and the template is to have 4194304"
    assert memctl.error("template", "make", new, "--of", "x") == "Device 'x' not found"
    text = memctl.error("template", "make", new, "--size", "4M", "--from", f"{source}2")
    assert text == f"cannot read {source}2: No such file or directory"
    assert "No such file" in memctl.error("template", "make", f"{tmp_path}/none/t", "--size", "4M")
    for words in (["--size", "5000"], ["--size", "0"], ["--of", "x", "--from", "f"]):
        assert memctl("template", "make", new, *words)[0] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["image"]
    path.write_bytes(b"precious")
    assert memctl.error("template", "make", new, "--size", "4M") == f"{path} is there already"
    assert path.read_bytes() == b"precious"
    assert memd.regions() == []


def test_a_full_file_system(
    memctl: Memctl, tmp_path: Path, directory: Path, mount: Callable[..., None]
) -> None:
    place = directory / "small"
    mount("tmpfs", place, "size=1m")
    source = tmp_path / "image"
    source.write_bytes(os.urandom(2 * MIB))
    text = memctl.error(
        "template", "make", f"{place}/template", "--size", "4M", "--from", str(source)
    )
    assert text == "cannot write the template: No space left on device"
    assert list(place.iterdir()) == []


def begun(process: subprocess.Popen[bytes], place: Path) -> bool:
    """Whether a memctl has begun with a template that is to be there."""
    return any(each.startswith(str(place)) for each in descriptors(process.pid))


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name
)
def test_a_signal(memctl: Memctl, tmp_path: Path, number: signal.Signals) -> None:
    """Nothing of it stays, and nothing is seen of it before it is whole."""
    process = subprocess.Popen(
        argv(memctl.path, "template", "make", f"{tmp_path}/t", "--size", "8M", "--from", "-"),
        stdin=subprocess.PIPE,
        cwd=TREE,
    )
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(b"x" * 5 * MIB)
        process.stdin.flush()
        settle(lambda: begun(process, tmp_path), bool, 60)
        assert list(tmp_path.iterdir()) == []
        interrupt(process.pid, number)
        status = process.wait(60)
    assert status == (-number if number == signal.SIGKILL else 128 + number)
    assert memctl.out("ls", "-q") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_daemon_saves(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    """What it comes to then has no place any more."""
    place: list[Path] = []

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "x-memdev-stat":
            peer.answer(request, [{"size": MIB, "page-size": 4096}])
        else:
            place.append(Path(request["arguments"]["filename"]))
            place[0].write_bytes(b"half")
            interrupt(peer.pid, signal.SIGTERM)

    status, _out, err = fake(talk).fed(b"", "template", "make", f"{tmp_path}/t", "--of", "vm0")
    assert (status, err) == (143, "memctl: the daemon goes on, and nothing of it stays\n")
    assert place[0].parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_the_daemon_maps_it(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    """It has its name by then, and loses it again; a backend that is there is deleted."""
    deleted: list[str] = []

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        arguments = request.get("arguments", {})
        if request["execute"] == "object-add":
            assert [each.name for each in tmp_path.iterdir()] == ["t"]
            interrupt(peer.pid, signal.SIGTERM)
        elif request["execute"] == "object-del":
            deleted.append(arguments["id"])
            peer.answer(request)
        elif request["execute"] == "query-status":
            peer.answer(request)
        else:
            knows_nothing(peer, request)

    status, _out, _err = fake(talk).fed(b"", "template", "make", f"{tmp_path}/t", "--size", "1M")
    assert status == 143
    assert len(set(deleted)) == 1
    assert list(tmp_path.iterdir()) == []


def test_hugetlbfs(
    memctl: Memctl,
    tmp_path: Path,
    directory: Path,
    mount: Callable[..., None],
    hugepages: Callable[[int], None],
) -> None:
    """Which can't be written to, but mapped."""
    hugepages(4)
    mount("hugetlbfs", directory / "huge")
    path = directory / "huge" / "template"
    source = image(tmp_path)
    memctl.out("template", "make", str(path), "--size", "6M", "--from", str(source))
    assert path.read_bytes() == source.read_bytes() + bytes(MIB)
    path.unlink()


def test_two_at_once(memctl: Memctl, tmp_path: Path, directory: Path) -> None:
    """The one that comes second touches nothing of the first."""
    path, content = tmp_path / "template", directory / "content"
    os.mkfifo(content)

    def win() -> None:
        with content.open("wb") as pipe:
            path.write_bytes(b"the winner's")
            pipe.write(b"the second's")

    thread = threading.Thread(target=win)
    thread.start()
    words = ["--size", "1M", "--from", str(content)]
    assert memctl.error("template", "make", str(path), *words) == f"{path} is there already"
    thread.join()
    assert path.read_bytes() == b"the winner's"
    assert list(tmp_path.iterdir()) == [path]


def test_two_at_once_while_the_daemon_saves(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    path = tmp_path / "template"

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "x-memdev-stat":
            peer.answer(request, [{"size": MIB, "page-size": 4096}])
        else:
            Path(request["arguments"]["filename"]).write_bytes(bytes(MIB))
            path.write_bytes(b"the winner's")
            peer.answer(request)

    text = fake(talk).error("template", "make", str(path), "--of", "vm0")
    assert text == f"{path} is there already"
    assert path.read_bytes() == b"the winner's"
    assert list(tmp_path.iterdir()) == [path]


def test_another_file_in_its_place(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    """It is nobody's business here, whatever becomes of the template."""
    path = tmp_path / "template"

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "object-add":
            path.unlink()
            path.write_bytes(b"another's")
        peer.refuse(request, "no")

    text = fake(talk).error("template", "make", str(path), "--size", "1M")
    assert text == f"{path} is not a template: no"
    assert path.read_bytes() == b"another's"


@need_root
def test_a_daemon_in_another_mount_namespace(
    tmp_path: Path, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused, and nothing stays here or there."""
    command = f'mount -t tmpfs none {tmp_path} && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", command, "sh", *memd_argv()]
    path = tmp_path / "template"
    with running("memd", argv, directory) as server:
        memctl = Memctl(server.path, capsys)
        there = Path(f"/proc/{server.pid}/root{tmp_path}")
        text = memctl.error("template", "make", str(path), "--size", "1M")
        assert text == (
            f"{path} is not a template: can't open backing store {path} for guest RAM:"
            " No such file or directory"
        )
        memctl.out("add", "ram,id=vm0,size=1M")
        text = memctl.error("template", "make", str(path), "--of", "vm0")
        assert text.startswith(f"cannot save 'vm0' to '{tmp_path}/.memctl-")
        assert text.endswith(": No such file or directory")
        assert list(there.iterdir()) == []
        (there / "template").write_bytes(bytes(MIB))
        text = memctl.error("template", "make", str(path), "--size", "1M")
        assert text == f"the daemon has another file at {path}"
        assert list(there.iterdir()) == [there / "template"]
        memctl.out("del", "vm0")
        assert memctl.out("ls", "-q") == ""
    assert list(tmp_path.iterdir()) == []


def test_ids_are_nobody_elses(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    """Processes of two PID namespaces have the same ids."""
    ids = []

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "object-add":
            ids.append(request["arguments"]["id"])
            peer.refuse(request, "no")
        else:
            peer.refuse(request, "not found", "DeviceNotFound")

    memctl = fake(talk)
    path = tmp_path / "template"
    for _ in range(2):
        text = memctl.error("template", "make", str(path), "--size", "1M")
        assert text == f"{path} is not a template: no"
        assert not path.exists()
    assert len(set(ids)) == 2


def test_over_tcp(start_memd: Callable[..., Server], tmp_path: Path, capsys: Any) -> None:
    """Where no descriptor comes along."""
    address = f"tcp:127.0.0.1:{free_port()}"
    start_memd("--qmp", f"{address},server=on,wait=off")
    path = tmp_path / "template"
    Memctl(address, capsys).out("template", "make", str(path), "--size", "1M")
    assert path.read_bytes() == bytes(MIB)
