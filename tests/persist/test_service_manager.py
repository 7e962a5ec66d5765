"""A daemon before its service manager: what it tells, what it is passed, how it comes back."""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NOT_HERE
from tests.differential.harness import settle
from tests.differential.server import TREE, Monitor, is_listening
from tests.manager import ServiceManager
from tests.tls import Certificates

Manage = Callable[..., ServiceManager]
MIB = 1 << 20


@contextmanager
def talking(manager: ServiceManager) -> Iterator[Monitor]:
    with closing(Monitor(manager.directory / "qmp.sock")) as monitor:
        yield monitor


def ask(monitor: Monitor, command: str, **arguments: Any) -> Any:
    answer = monitor.execute(command, arguments)
    assert "return" in answer, answer
    return answer["return"]


def add(monitor: Monitor, kind: str, id: str, **options: Any) -> None:
    named = {name.replace("_", "-"): value for name, value in options.items()}
    ask(monitor, "object-add", **{"qom-type": f"memory-backend-{kind}", "id": id, **named})


def ids(monitor: Monitor) -> list[str]:
    return [each["id"] for each in ask(monitor, "query-memdev")]


@pytest.mark.parametrize("abstract", [False, True])
def test_what_it_tells(manage: Manage, abstract: bool) -> None:
    """READY with the first status, a status when that changes, STOPPING."""
    manager = manage("--object", "memory-backend-memfd,id=m0,size=1M", abstract=abstract)
    manager.start_and_wait()
    assert manager.messages == [{"READY": "1", "STATUS": "1 backend, 1 MiB"}]
    with talking(manager) as monitor:
        add(monitor, "ram", "m1", size=512 << 10)
        assert (
            settle(lambda: manager.status, lambda now: now == "2 backends, 1.5 MiB")
            == "2 backends, 1.5 MiB"
        )
        ask(monitor, "object-del", id="m0")
        assert (
            settle(lambda: manager.status, lambda now: now == "1 backend, 512 KiB")
            == "1 backend, 512 KiB"
        )
    assert manager.end() == 0
    assert [message for message in manager.messages if "STOPPING" in message] == [{"STOPPING": "1"}]


def test_without_a_store(manage: Manage) -> None:
    """A manager that keeps nothing is told how things are all the same, and nothing more."""
    manager = manage(capacity=0)
    manager.start_and_wait()
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB)
        assert (
            settle(lambda: manager.status, lambda now: now == "1 backend, 1 MiB")
            == "1 backend, 1 MiB"
        )
    manager.restart()
    with talking(manager) as monitor:
        assert ids(monitor) == []
        assert ask(monitor, "x-memdev-lost") == []


def test_somebody_elses_store(manage: Manage) -> None:
    """What a service starts has its environment, and no store."""
    manager = manage()
    program = (
        "import os,sys; os.fork() and os._exit(os.wait()[1]); os.execv(sys.argv[1], sys.argv[1:])"
    )
    manager.argv = [manager.argv[0], "-c", program, *manager.argv]
    manager.start()
    path = manager.directory / "qmp.sock"
    assert settle(lambda: is_listening(path), bool)
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB)
        ask(monitor, "quit")
    manager.wait()
    assert manager.names() == []


def test_signs_of_life(manage: Manage) -> None:
    manager = manage(watchdog=0.05)
    manager.start_and_wait()
    manager.wait_for("WATCHDOG", "1")
    before = len(manager.messages)
    assert settle(lambda: len(manager.messages) > before + 3, bool)


def state_of(pid: int) -> str:
    """A process's state (proc_pid_stat(5)), "T" for stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_loop_that_hangs_gives_no_sign(manage: Manage) -> None:
    manager = manage(watchdog=0.02)
    manager.start_and_wait()
    manager.wait_for("WATCHDOG", "1")
    os.kill(manager.pid, signal.SIGSTOP)
    assert settle(lambda: state_of(manager.pid), lambda now: now == "T") == "T"
    # What was under way is heard; from then on there is silence.
    manager.catch_up()
    before = len(manager.messages)
    time.sleep(0.1)
    assert len(manager.messages) == before
    os.kill(manager.pid, signal.SIGCONT)
    assert settle(lambda: len(manager.messages) > before, bool)


@pytest.mark.parametrize("how", ["kill", "terminate", "quit"])
def test_it_comes_back(manage: Manage, how: str) -> None:
    """However it ends, the same objects are there before the first client is answered."""
    manager = manage("--object", "memory-backend-memfd,id=line,size=1M")
    manager.start_and_wait()
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB, prealloc=True)
        add(monitor, "ram", "p0", size=MIB)
        for id in ("line", "m0"):
            data = base64.b64encode(id.encode()).decode()
            ask(monitor, "x-memdev-write", id=id, offset=5, data=data)
        ask(monitor, "qom-set", path="/objects/m0", property="dump", value=False)
        before = ask(monitor, "query-memdev")
        if how == "quit":
            ask(monitor, "quit")
    if how == "kill":
        manager.kill()
    else:
        assert (manager.wait() if how == "quit" else manager.end()) == 0
    manager.start_and_wait()
    with talking(manager) as monitor:
        assert ask(monitor, "query-memdev") == [each for each in before if each["id"] != "p0"]
        for id in ("line", "m0"):
            read = ask(monitor, "x-memdev-read", id=id, offset=5, length=len(id))
            assert base64.b64decode(read["data"]).decode() == id
        (loss,) = ask(monitor, "x-memdev-lost")
        assert abs(loss.pop("time") - time.time()) < 60
        assert loss == {
            "id": "p0",
            "qom-type": "memory-backend-ram",
            "reason": "anonymous",
            "size": MIB,
        }
    assert manager.status == "2 backends, 2 MiB; lost: p0"
    assert "lost with the restart: 'p0': it was private memory" in manager.output()


@pytest.mark.usefixtures("merging")
def test_zeroes_that_were_merged_are_content(manage: Manage, directory: Path) -> None:
    """A copy of a file's page that is the kernel's page of zeroes by now can't come back."""
    path = directory / "file"
    path.write_bytes(b"f" * MIB)
    manager = manage()
    manager.start_and_wait()
    with talking(manager) as monitor:
        for id in ("zeroes", "untouched"):
            add(monitor, "file", id, size=MIB, mem_path=str(path), readonly=True, rom="off")
        data = base64.b64encode(bytes(8 * 4096)).decode()
        ask(monitor, "x-memdev-write", id="zeroes", offset=4096, data=data)

        def merged() -> str:
            return Path(f"/proc/{manager.pid}/ksm_stat").read_text()

        if "ksm_zero_pages 8\n" not in settle(merged, lambda now: "ksm_zero_pages 8\n" in now):
            pytest.skip(f"{NOT_HERE}a kernel that merges pages of zeroes")
    manager.restart()
    with talking(manager) as monitor:
        assert ids(monitor) == ["untouched"]
        (loss,) = ask(monitor, "x-memdev-lost")
        assert (loss["id"], loss["reason"]) == ("zeroes", "copied")


def test_clients_that_connect_early_find_everything(manage: Manage) -> None:
    """Clients that connect while it starts are answered once everything is back."""
    manager = manage(capacity=600)
    manager.start_and_wait()
    with talking(manager) as monitor:
        for number in range(500):
            add(monitor, "memfd", f"m{number}", size=4096)
    manager.kill()
    manager.start()
    path = manager.directory / "qmp.sock"
    settle(lambda: is_listening(path), bool)
    with talking(manager) as monitor:
        assert len(ids(monitor)) == 500


def test_sockets(manage: Manage, directory: Path) -> None:
    """Each is served, by its name where that can be an id, and together with what was kept."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        names = ["memd.socket", "second"]
        for name, sock in zip(names, (one, two), strict=True):
            sock.bind(f"{directory}/{name}")
            sock.listen()
        others = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for number, sock in enumerate(others):
            sock.bind(f"{directory}/other{number}")
            sock.listen()
        # Such as no id can be, twice the same, such as what is kept has.
        named = zip(("no id", "same", "same", "memd-1"), others, strict=True)
        manager = manage(sockets=[*zip(names, (one, two), strict=True), *named])
        for _ in range(2):
            manager.start_and_wait()
            with closing(Monitor(directory / "other3")) as monitor:
                labels = {each["label"] for each in ask(monitor, "query-chardev")}
                assert labels == {
                    *("memd.socket", "second", "activated2", "activated3", "activated4"),
                    *("memd-1", "compat_monitor0"),
                }
                if not ids(monitor):
                    add(monitor, "memfd", "m0", size=4096)
                assert ids(monitor) == ["m0"]
            manager.kill()
        assert manager.names() == ["memd-list", "memd-1"]
        for sock in others:
            sock.close()


def test_a_socket_may_not_have_an_object_s_name(manage: Manage, directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{directory}/activated")
        sock.listen()
        # The one that the command line has already.
        manager = manage(sockets=[("compat_monitor0", sock)])
        manager.start_and_wait()
        with closing(Monitor(directory / "activated")) as monitor:
            labels = {each["label"] for each in ask(monitor, "query-chardev")}
        assert labels == {"activated0", "compat_monitor0"}


def test_a_newer_daemon_s_store(manage: Manage) -> None:
    """It is refused, kept, and still there for the newer one."""
    manager = manage()
    manager.start_and_wait()
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB)
    manager.kill()
    (listed,) = [each.fd for each in manager.store if each.name == "memd-list"]
    from memd.persist.object_log import FORMAT, line_of

    header = {"format": FORMAT + 1, "by": "9.9", "generation": 99, "begin": 8192}
    before = os.pread(listed, 256, 0)
    os.pwrite(listed, line_of(header), 0)
    manager.start()
    assert manager.wait() == 1
    text = (
        f"what the service manager's store holds can't be read: it is of format {FORMAT + 1},"
        f" written by a newer memd (9.9): this one reads format {FORMAT}"
    )
    assert f"memd: {text}\n" in manager.output()
    assert manager.status == text
    assert manager.names() == ["memd-list", "memd-1"]
    os.pwrite(listed, before, 0)
    manager.start_and_wait()
    with talking(manager) as monitor:
        assert ids(monitor) == ["m0"]


def test_another_command_line(manage: Manage) -> None:
    manager = manage("--object", "memory-backend-memfd,id=m0,size=1M")
    manager.start_and_wait()
    manager.kill()
    manager.argv[-1] = "memory-backend-memfd,id=m0,size=2M"
    manager.start()
    assert manager.wait() == 1
    assert "object 'm0' is there from before the restart" in manager.output()
    assert manager.names() == ["memd-list", "memd-1"]


def test_the_next_ones_go_on(manage: Manage) -> None:
    """One list goes on and on, from daemon to daemon."""
    manager = manage()
    manager.start_and_wait()
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB)
    (listed,) = [each.fd for each in manager.store if each.name == "memd-list"]
    inode = os.fstat(listed).st_ino
    manager.restart()
    (listed,) = [each.fd for each in manager.store if each.name == "memd-list"]
    assert os.fstat(listed).st_ino == inode
    with talking(manager) as monitor:
        assert ids(monitor) == ["m0"]


def says(text: str) -> Callable[[str], bool]:
    return lambda output: text in output


def test_reloading(manage: Manage, certificates: Certificates) -> None:
    """SIGUSR1 has the files of TLS credentials read anew; who can't read them keeps the old."""
    folder = certificates.folder(ca_cert="ca", server_cert="server", server_key="server.key")
    spec = f"tls-creds-x509,id=tls0,dir={folder},endpoint=server,verify-peer=off"
    manager = manage("--object", spec)
    manager.start_and_wait()
    for content, complaint in ((None, ""), (b"no key", "'tls0' stays as it was: ")):
        if content is not None:
            (folder / "server-key.pem").write_bytes(content)
        manager.messages.clear()
        os.kill(manager.pid, signal.SIGUSR1)
        reloading = manager.wait_for("RELOADING", "1")
        assert 0 < int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.wait_for("READY", "1")["STATUS"] == "0 backends, 0 bytes"
        # The log is written beside the loop.
        assert complaint in settle(manager.output, says(complaint))


def test_a_manager_that_dropped_everything(manage: Manage) -> None:
    """As systemd does where the room shrinks below what there is: a reload parks it anew."""
    manager = manage()
    manager.start_and_wait()
    with talking(manager) as monitor:
        for id in ("m0", "m1", "m2"):
            add(monitor, "memfd", id, size=4096)
        add(monitor, "ram", "p0", size=4096)
        ask(monitor, "object-del", id="m1")
    assert settle(lambda: manager.names() == ["memd-list", "memd-1", "memd-3"], bool)
    for _ in range(2):
        manager.messages.clear()
        os.kill(manager.pid, signal.SIGUSR1)
        manager.wait_for("READY")
        assert manager.names() == ["memd-list", "memd-1", "memd-3"]
        manager.clean()
    os.kill(manager.pid, signal.SIGUSR1)
    assert settle(lambda: len(manager.names()) == 3, bool)
    manager.kill()
    manager.start_and_wait()
    with talking(manager) as monitor:
        assert ids(monitor) == ["m0", "m2"]


def test_time_is_asked_for(manage: Manage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preallocation at the start may take longer than the manager is patient."""
    program = (
        "import sys, time; import memd.persist.service_manager as k; k.MORE_TIME = 0.003;"
        " import memd.hostmem.populate as p; real = p.Population.run;"
        " p.Population.run = lambda self: (time.sleep(0.2), real(self));"
        " from memd.cli.main import main; sys.exit(main())"
    )
    manager = manage("--object", "memory-backend-memfd,id=m0,size=1M,prealloc=on")
    manager.argv[1:3] = ["-c", program]
    manager.start_and_wait()
    asked = [each for each in manager.messages if "EXTEND_TIMEOUT_USEC" in each]
    assert asked
    assert asked[0] == {"EXTEND_TIMEOUT_USEC": "3000"}


def test_a_manager_that_is_not_there(directory: Path, manage: Manage) -> None:
    """memd is started with a leftover of an environment: it runs."""
    manager = manage(capacity=0, environment={"NOTIFY_SOCKET": "/nowhere"})
    manager.address, address = f"{directory}/nobody", manager.address
    manager.start()
    manager.address = address
    path = manager.directory / "qmp.sock"
    assert settle(lambda: is_listening(path), bool)
    with talking(manager) as monitor:
        add(monitor, "memfd", "m0", size=MIB)
    assert manager.end() == 0
    assert "the service manager can't be reached" in manager.output()


def test_an_address_that_is_not_understood(directory: Path, manage: Manage) -> None:
    manager = manage(capacity=0)
    manager.address, address = "vsock:2:1234", manager.address
    manager.start()
    manager.address = address
    path = manager.directory / "qmp.sock"
    assert settle(lambda: is_listening(path), bool)
    assert manager.end() == 0
    assert manager.output() == ""


def test_more_descriptors_than_may_be_opened(manage: Manage) -> None:
    """A hundred are passed, and there may be 100: the limit is raised as far as it goes."""
    manager = manage(capacity=200)
    manager.start_and_wait()
    with talking(manager) as monitor:
        for number in range(100):
            add(monitor, "memfd", f"m{number}", size=4096)
    manager.kill()
    program = (
        "import os,resource,sys; resource.setrlimit(resource.RLIMIT_NOFILE, (110, 4096));"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    manager.argv = [manager.argv[0], "-c", program, *manager.argv]
    manager.start_and_wait()
    with talking(manager) as monitor:
        assert len(ids(monitor)) == 100
        add(monitor, "memfd", "more", size=4096)


def test_nothing_of_it_is_imported_without_a_manager() -> None:
    """A start without one costs what it did."""
    import subprocess
    import sys

    program = (
        "import asyncio, sys; from memd.cli.main import main; import memd.app, memd.app.app;"
        " print([name for name in sys.modules if name.startswith(('memd.app.k', 'memd.app.r',"
        " 'memd.persist.sd_notify', 'memd.persist.fdstore', 'memd.persist.object_log'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=TREE
    )
    assert done.stdout == "[]\n"
