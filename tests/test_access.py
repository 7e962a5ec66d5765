"""Who may do what: real daemons, and clients that are other users."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NOT_HERE
from tests.differential.server import PATIENCE, TREE, Monitor, Server, memd_argv
from tests.tls import Certificates, negotiated, server_options
from tests.users import NOBODY, STRANGER, need_root, run_as

Start = Callable[..., Server]

ASK = """
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    lines = client.makefile("rw")
    answers = [lines.readline()]
    for command in ("qmp_capabilities", *sys.argv[2:]):
        lines.write(json.dumps({"execute": command}) + "\\n")
        lines.flush()
        answers.append(lines.readline())
except OSError as error:
    answers = [type(error).__name__]
print(json.dumps(answers))
"""

ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Runs a command as a service manager does that has made a socket for it."""

REFUSED = ["BrokenPipeError", "ConnectionResetError", ""]
"""What is left to a client that is disconnected at once."""


def ask(path: Path, user: int, *commands: str, groups: Sequence[int] = ()) -> list[str]:
    """Connect as a user; what is read: the greeting and the answers, or what went wrong."""
    with run_as(user, ASK, str(path), *commands, groups=groups) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    answers: list[str] = json.loads(output)
    return answers


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def start(start_memd: Start, directory: Path) -> Start:
    """Starts daemons whose sockets lie where everybody gets."""
    directory.chmod(0o755)
    return start_memd


def test_sockets_are_the_users_own(start: Start) -> None:
    path = start().path
    assert mode_of(path) == 0o600
    assert path.stat().st_uid == os.geteuid()


@need_root
def test_without_a_word_nobody_else_may(start: Start) -> None:
    assert ask(start().path, STRANGER) == ["PermissionError"]


@need_root
@pytest.mark.parametrize(
    ("options", "user", "groups", "may"),
    [
        (["--allow-user", str(STRANGER)], STRANGER, [], True),
        (["--allow-user", str(STRANGER)], 0, [], True),
        (["--allow-user", str(STRANGER)], STRANGER + 1, [], False),
        (["--allow-user", str(STRANGER)], STRANGER + 1, [STRANGER], False),
        (["--allow-group", "777"], STRANGER, [776, 777], True),
        (["--allow-group", str(NOBODY)], STRANGER, [], True),
        (["--allow-group", "777"], STRANGER, [776], False),
        (["--allow-group", "777", "--allow-user", "nobody"], NOBODY, [], True),
    ],
)
def test_who_is_allowed(
    start: Start, options: list[str], user: int, groups: list[int], may: bool
) -> None:
    server = start(*options)
    assert mode_of(server.path) == 0o666
    first = ask(server.path, user, "query-name", groups=groups)[0]
    if may:
        assert json.loads(first)["QMP"]
        assert "refused" not in server.stderr()
    else:
        assert first in REFUSED
        assert "refused a client: pid " in server.stderr("refused a client: pid ")
        assert f"uid {user}, gid {NOBODY} may not connect" in server.stderr()
    # The test itself is root, and always may.
    assert server.monitor().execute("query-status")["return"]["running"]


@need_root
def test_one_monitor_for_each(start: Start, directory: Path) -> None:
    """The watchers' group has a read-only monitor, and nothing else."""
    watch = directory / "watch"
    server = start(
        "--qmp", f"unix:{watch},server=on,wait=off,readonly=on,allow-group=777", "--name", "n"
    )
    assert mode_of(server.path) == 0o600
    assert ask(server.path, STRANGER, groups=[777]) == ["PermissionError"]
    _greeting, negotiated, name, quits = ask(watch, STRANGER, "query-name", "quit", groups=[777])
    assert (json.loads(negotiated), json.loads(name)) == ({"return": {}}, {"return": {"name": "n"}})
    assert json.loads(quits)["error"]["desc"] == (
        "The command 'quit' is not permitted on a read-only monitor"
    )
    assert ask(watch, STRANGER, "query-name", groups=[])[0] in REFUSED


@need_root
@pytest.mark.parametrize("activated", [False, True])
def test_inherited_sockets(directory: Path, activated: bool) -> None:
    """memd checks each peer, also on a socket that it has not made."""
    directory.chmod(0o755)
    path = directory / "inherited"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen()
        options = [] if activated else ["--qmp", f"unix:fd={sock.fileno()},server=on,wait=off"]
        argv = [*memd_argv(), *options, "--allow-user", str(STRANGER)]
        if activated:
            argv = [sys.executable, "-c", ACTIVATE, str(sock.fileno()), *argv]
        with subprocess.Popen(
            argv,
            pass_fds=[sock.fileno()],
            env=dict(os.environ, PYTHONPATH=str(TREE), LISTEN_FDS="1"),
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                assert json.loads(ask(path, STRANGER)[0])["QMP"]
                assert ask(path, NOBODY, "query-name")[0] in REFUSED
            finally:
                process.terminate()


@need_root
def test_a_client_that_was_waited_for_is_checked_too(directory: Path) -> None:
    directory.chmod(0o755)
    path = directory / "s"
    argv = [*memd_argv(), "--qmp", f"unix:{path},server=on", "--allow-user", str(STRANGER)]
    with subprocess.Popen(
        argv, env=dict(os.environ, PYTHONPATH=str(TREE)), stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stderr is not None
            assert b"waiting for connection" in process.stderr.readline()
            assert ask(path, NOBODY, "query-name")[0] in REFUSED
            assert b"refused a client" in process.stderr.readline()
            assert json.loads(ask(path, STRANGER, "quit")[0])["QMP"]
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@need_root
def test_whom_it_connects_to_is_looked_at_too(directory: Path) -> None:
    directory.chmod(0o777)
    listen = "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True)"
    path = directory / "s"
    with run_as(STRANGER, f"{listen}; sys.stdin.read()", str(path)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        done = _run("--qmp", f"unix:{path}", "--allow-group", "777")
    assert done.returncode == 1
    assert f"the process that serves 'unix:{path}' may not be a client\n" in done.stderr


@pytest.mark.parametrize("address", ["tcp:127.0.0.1:0", "tcp:[::1]:0"])
def test_over_tcp_nobody_can_be_told_from_another(address: str) -> None:
    done = _run("--qmp", f"{address},server=on,wait=off", "--allow-user", "0")
    if "Cannot assign" in done.stderr:
        address = "tcp:127.0.0.1:0"
        done = _run("--qmp", f"{address},server=on,wait=off", "--allow-user", "0")
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"memd: --qmp {address},server=on,wait=off: "
        "refusing to serve QMP where the users who connect can't be told\n"
    )


def test_a_read_only_monitor(start: Start, directory: Path) -> None:
    path = directory / "watch"
    server = start("--qmp", f"unix:{path},server=on,wait=off,readonly=on")
    full, watch = server.monitor(), Monitor(path)
    try:
        add = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}
        refused: dict[str, Any] = watch.execute("object-add", add)
        assert refused == {
            "error": {
                "class": "GenericError",
                "desc": "The command 'object-add' is not permitted on a read-only monitor",
            }
        }
        assert full.execute("object-add", add) == {"return": {}}
        (memdev,) = watch.execute("query-memdev")["return"]
        assert memdev["id"] == "m0"
        assert watch.execute("x-memdev-stat")["return"][0]["id"] == "m0"
        for monitor in (full, watch):
            commands = {each["name"] for each in monitor.execute("query-commands")["return"]}
            assert "object-add" in commands
        # Events come to it as to others.
        assert full.execute("object-del", {"id": "m0"}) == {"return": {}}
        assert full.execute("quit") == {"return": {}}
        assert watch.read_event("SHUTDOWN")
    finally:
        watch.close()


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*memd_argv(), *options],
        env=dict(os.environ, PYTHONPATH=str(TREE)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


# Files


def test_files_of_clients_are_below_the_roots(start: Start, directory: Path) -> None:
    root, out = directory / "root", directory / "out"
    root.mkdir()
    out.mkdir()
    (out / "f").write_bytes(b"theirs")
    (root / "link").symlink_to(out)
    server = start("--mem-root", str(root))
    monitor = server.monitor()
    outside = "Path is not below a directory of --mem-root"

    def add(id: str, path: Path, **more: Any) -> Any:
        arguments = {"qom-type": "memory-backend-file", "id": id, "size": 4096, **more}
        return monitor.execute("object-add", {**arguments, "mem-path": str(path)})

    assert add("a", root / "f") == {"return": {}}
    assert add("b", root) == {"return": {}}
    for path in (out / "f", root / "link/f", root / "../out/f", root / "link"):
        for readonly in (False, True):
            refused = f"can't open backing store {path} for guest RAM: {outside}"
            assert add("c", path, readonly=readonly)["error"]["desc"] == refused
        told = monitor.execute(
            "x-memdev-explain",
            {"qom-type": "memory-backend-file", "id": "c", "size": 4096, "mem-path": str(path)},
        )
        assert told["return"]["error"]["desc"] == refused
    save = monitor.execute("x-memdev-save", {"id": "a", "filename": f"{root}/link/saved"})
    assert save["error"]["desc"] == f"cannot save 'a' to '{root}/link/saved': {outside}"
    assert monitor.execute("x-memdev-save", {"id": "a", "filename": f"{root}/saved"}) == {
        "return": {}
    }
    config = {"driver": "blkdebug", "node-name": "n", "image": "i", "config": str(out / "f")}
    assert outside in monitor.execute("blockdev-add", config)["error"]["desc"]
    assert (out / "f").read_bytes() == b"theirs"
    assert (os.listdir(out), sorted(os.listdir(root))) == (["f"], ["f", "link", "saved"])


def test_a_root_that_is_not_there(directory: Path) -> None:
    done = _run(
        "--mem-root", f"{directory}/none", "--qmp", f"unix:{directory}/q,server=on,wait=off"
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"memd: --mem-root {directory}/none: No such file or directory\n",
    )


# The audit


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@need_root
def test_who_did_what(start: Start, directory: Path) -> None:
    path, watch = directory / "audit", directory / "watch"
    server = start(
        *("--audit", str(path), "--allow-user", str(STRANGER)),
        *("--qmp", f"unix:{watch},server=on,wait=off,readonly=on"),
    )
    add = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096, "prealloc": True}
    monitor = server.monitor()
    assert monitor.execute("object-add", add) == {"return": {}}
    assert monitor.execute("query-memdev")["return"]
    ask(server.path, STRANGER, "query-status", "stop")
    ask(watch, STRANGER, "query-status", "quit")
    seen = records(path)
    for record in seen:
        assert record.pop("time")
        assert record.pop("pid")
    assert seen == [
        {
            "command": "object-add",
            "id": "m0",
            "arguments": add,
            "monitor": "compat_monitor1",
            "uid": 0,
            "gid": os.getegid(),
            "outcome": "ok",
        },
        {
            "command": "stop",
            "arguments": {},
            "monitor": "compat_monitor1",
            "uid": STRANGER,
            "gid": NOBODY,
            "outcome": "ok",
        },
        {
            "command": "quit",
            "arguments": {},
            "monitor": "compat_monitor0",
            "uid": STRANGER,
            "gid": NOBODY,
            "outcome": "GenericError",
            "error": "The command 'quit' is not permitted on a read-only monitor",
        },
    ]


def test_who_came_over_tcp(start: Start, directory: Path, certificates: Certificates) -> None:
    path = directory / "audit"
    server = start(
        *("--audit", str(path), "--qmp", "tcp:127.0.0.1:0,server=on,wait=off"),
        *server_options(certificates.good),
    )
    rows = server.monitor().execute("query-chardev")["return"]
    ports = {
        row["label"]: int(re.findall(r"127.0.0.1:(\d+)", row["filename"])[0])
        for row in rows
        if "127.0.0.1" in row["filename"]
    }
    with negotiated(ports["secure"], certificates.client_context()) as client:
        own = client.socket.getsockname()[1]
        assert "error" in client.execute("object-del", id="m0")
    with socket.create_connection(("127.0.0.1", ports["compat_monitor0"])) as plain:
        lines = plain.makefile("rw")
        for command in ("qmp_capabilities", "device_del"):
            lines.readline()
            lines.write(json.dumps({"execute": command}))
            lines.flush()
        assert json.loads(lines.readline())
        other = plain.getsockname()[1]
        lines.close()
    first, second = records(path)
    assert (first["command"], second["command"]) == ("object-del", "device_del")
    assert (first["address"], first["certificate"]) == (f"127.0.0.1:{own}", "localhost")
    assert (second["address"], "certificate" in second) == (f"127.0.0.1:{other}", False)
    assert "uid" not in first


JOURNAL = """
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald &
journal=$!
until test -S /run/systemd/journal/socket; do sleep 0.01; done
printf '%s' '{"execute": "qmp_capabilities"}{"execute": "quit"}' | "$@" --audit journal --qmp stdio
# The journal's own word that it has written what came before.
kill -RTMIN+1 $journal
until journalctl -D /run/log/journal -o json MEMD_COMMAND=quit | grep MEMD; do sleep 0.01; done
kill $journal
wait $journal
"""


@need_root
def test_the_journal_has_it() -> None:
    """A journal of this test's own, in a mount namespace where /run is another."""
    if not os.path.exists("/lib/systemd/systemd-journald"):
        pytest.skip("needs systemd")
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip(f"{NOT_HERE}leave to make namespaces")
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", JOURNAL, "sh", *memd_argv()],
        env=dict(os.environ, PYTHONPATH=str(TREE)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    fields = json.loads(done.stdout.splitlines()[-1])
    assert fields["MESSAGE"] == "quit by compat_monitor0: ok"
    assert fields["SYSLOG_IDENTIFIER"] == "memd"
    assert fields["MEMD_OUTCOME"] == "ok"


# What memory holds


def test_no_log_has_what_memory_holds(start: Start, directory: Path) -> None:
    """Whatever goes wrong with it."""
    mark = os.urandom(12).hex()
    data = base64.b64encode(mark.encode()).decode()
    file = directory / "file"
    file.write_bytes(bytes(8192))
    audit = directory / "audit"
    server = start("--audit", str(audit))
    monitor = server.monitor()

    def add(id: str, **more: Any) -> None:
        arguments = {"id": id, "size": 8192, "mem-path": str(file), "share": True, **more}
        answer = monitor.execute("object-add", {"qom-type": "memory-backend-file", **arguments})
        assert answer == {"return": {}}

    add("m0")
    add("rom", readonly=True)
    write = {"id": "m0", "offset": 0, "data": data}
    assert monitor.execute("x-memdev-write", write) == {"return": {}}
    for change in (
        *({"id": "rom"}, {"id": "no"}, {"id": [data]}, {"offset": 8190}, {"offset": data}),
        *({"data": data + "!"}, {"data": data[1:]}, {"data": [data]}, {"data": {data: data}}),
        *({"more": data}, {data: 1}, {"data": data + "\ud800"}),
    ):
        for command in ("x-memdev-write", "x-memdev-wrote", "query-status"):
            assert "error" in monitor.execute(command, {**write, **change})
    assert "error" in monitor.execute("x-memdev-write", write, more=data)
    assert "error" in monitor.execute("x-memdev-write", data)
    # The file is gone below the mapping: a write fails in the kernel, a read and a save too.
    os.truncate(file, 0)
    assert "error" in monitor.execute("x-memdev-write", write)
    assert "error" in monitor.execute("x-memdev-read", {"id": "m0", "offset": 0, "length": 9})
    saved = {"id": "m0", "filename": f"{directory}/none/saved"}
    assert "error" in monitor.execute("x-memdev-save", saved)
    for broken in (b'"%s\n"', b"%s", b'{"%s" x', b'["%s", \xff]', b'{"execute": "%s", "a": 1}'):
        noise = server.monitor()
        noise.send(broken % data.encode())
        noise.send(b"\xff")
        noise.read()
        # Gone in the middle of a message.
        noise.send(b'{"execute": "x-memdev-write", "arguments": {"data": "%s' % data.encode())
        noise.close()
    assert monitor.execute("query-status")["return"]
    log = server.stderr() + audit.read_text()
    assert "x-memdev-write" in log
    for form in (mark, data, data[1:-4], mark.encode().hex()):
        assert form not in log
