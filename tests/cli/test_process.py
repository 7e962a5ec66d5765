from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memd.cli.process import PidFile, make_socket_directory
from memd.errors import QMPError
from tests import NOT_THERE
from tests.descriptors import open_descriptors
from tests.users import STRANGER, need_root

TREE = Path(__file__).resolve().parents[2]


def run(script: str, *argv: str, prefix: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with what it needs imported."""
    head = "import os, sys\nfrom memd.cli.process import *\nfrom memd.errors import QMPError\n"
    return subprocess.run(
        [*prefix, sys.executable, "-c", head + textwrap.dedent(script), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TREE)},
    )


TAKE = """
    try:
        PidFile(sys.argv[1])
    except QMPError as error:
        print(error.desc)
"""


def take(path: Path | str) -> str:
    """What another process is told that wants the file."""
    return run(TAKE, str(path)).stdout.rstrip("\n")


@pytest.fixture
def pidfile(directory: Path) -> Iterator[Path]:
    path = directory / "pid"
    made = PidFile(str(path))
    yield path
    made.close()


def test_the_pidfile(pidfile: Path) -> None:
    assert pidfile.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(pidfile.stat().st_mode) == 0o600


def test_it_is_one_daemons_at_a_time(pidfile: Path) -> None:
    assert take(pidfile) == (
        "cannot create PID file: Cannot lock pid file: Resource temporarily unavailable"
    )
    assert pidfile.read_text() == f"{os.getpid()}\n"


def test_it_goes_with_the_daemon(directory: Path) -> None:
    path = directory / "pid"
    made = PidFile(str(path))
    made.close()
    assert not path.exists()
    made.close()
    assert take(path) == ""


def test_an_old_one_is_taken_over(directory: Path) -> None:
    path = directory / "pid"
    path.write_text("a long line that some other program wrote\n")
    path.chmod(0o644)
    made = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    made.close()


def test_another_file_of_that_name_stays(directory: Path) -> None:
    path = directory / "pid"
    made = PidFile(str(path))
    path.rename(directory / "moved")
    path.write_text("other\n")
    made.close()
    assert path.read_text() == "other\n"
    path.unlink()
    made = PidFile(str(path))
    path.unlink()
    made.close()


@need_root
def test_a_strangers_file_is_not_taken(directory: Path) -> None:
    """He could write another process's id to it."""
    path = directory / "pid"
    path.write_text("1")
    os.chown(path, STRANGER, STRANGER)
    directory.chmod(0o1777)
    assert take(path) == (
        f"cannot create PID file: Could not create '{path}':"
        " File of another user in a directory that others can write"
    )
    assert path.read_text() == "1"


def test_it_is_found_from_anywhere(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    made = PidFile("pid")
    monkeypatch.chdir("/")
    made.close()
    assert not (directory / "pid").exists()


def test_a_link_is_followed(directory: Path) -> None:
    (directory / "link").symlink_to("target")
    made = PidFile(str(directory / "link"))
    assert (directory / "target").read_text() == f"{os.getpid()}\n"
    made.close()
    assert not (directory / "target").exists()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"{NOT_THERE}/x", f"Could not create '{NOT_THERE}/x': No such file or directory"),
        ("", "Could not create '': No such file or directory"),
        ("/", "Could not create '/': Is a directory"),
    ],
)
def test_no_pidfile(path: str, reason: str) -> None:
    with pytest.raises(QMPError) as caught:
        PidFile(path)
    assert caught.value.desc == f"cannot create PID file: {reason}"


def test_a_pidfile_that_takes_nothing() -> None:
    before = open_descriptors()
    with pytest.raises(QMPError) as caught:
        PidFile("/dev/full")
    assert caught.value.desc.startswith("cannot create PID file: Failed to ")
    assert len(open_descriptors()) == len(before)


def test_an_owner_that_leaves_while_one_waits(directory: Path) -> None:
    """It removes the file that is being opened."""
    path = directory / "pid"
    path.touch()
    with path.open("rb") as leased:

        def leave() -> None:
            # Opening a file to write waits until its lease is given back (fcntl(2)).
            while fcntl.fcntl(leased, fcntl.F_GETLEASE) == fcntl.F_RDLCK:
                time.sleep(0.001)
            path.unlink()
            fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_UNLCK)

        # Any thread may get the signal, which by default ends the process.
        before = signal.signal(signal.SIGIO, lambda *_: None)
        try:
            fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            leaving = threading.Thread(target=leave)
            leaving.start()
            made = PidFile(str(path))
            leaving.join()
        finally:
            signal.signal(signal.SIGIO, before)
        assert not os.path.samestat(os.fstat(leased.fileno()), path.stat())
    assert path.read_text() == f"{os.getpid()}\n"
    made.close()


BACKGROUND = """
    os.chdir(sys.argv[1])
    print("before", flush=True)
    sys.stdout.write("held")
    background = Background()
    if sys.argv[2] == "fail":
        print("no", file=sys.stderr)
        sys.exit(3)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), 9)
    with open("child", "w") as file:
        print(os.getpid(), os.getsid(0), os.getppid(), file=file)
        umask = os.umask(0)
        print(umask, file=file)
    background.ready()
    background.ready()
    print("lost")
    print("lost", file=sys.stderr)
    with open(sys.argv[1] + "/after", "w") as file:
        for fd in range(3):
            print(os.readlink(f"/proc/self/fd/{fd}"), file=file)
        print(os.getcwd(), file=file)
    os.rename(sys.argv[1] + "/after", sys.argv[1] + "/done")
"""


def test_into_the_background(directory: Path) -> None:
    done = run(BACKGROUND, str(directory), "")
    # `run` has returned: no process holds its pipes any more.
    assert (done.returncode, done.stdout, done.stderr) == (0, "before\nheld", "")
    ids, umask = (directory / "child").read_text().splitlines()
    pid, session, _parent = map(int, ids.split())
    assert pid != session
    assert session != os.getsid(0)
    assert int(umask) == 0o027
    while not (directory / "done").exists():
        os.sched_yield()
    assert (directory / "done").read_text().splitlines() == ["/dev/null"] * 3 + ["/"]


@pytest.mark.parametrize(("how", "said"), [("fail", "no\n"), ("die", "")])
def test_a_background_process_that_fails(directory: Path, how: str, said: str) -> None:
    done = run(BACKGROUND, str(directory), how)
    assert (done.returncode, done.stderr) == (1, said)


def test_standard_descriptors_are_filled() -> None:
    done = run(
        """
        os.close(0)
        os.close(1)
        fill_standard_descriptors()
        for fd in range(2):
            sys.stderr.write(os.readlink(f"/proc/self/fd/{fd}") + "\\n")
        before = os.stat(2)
        fill_standard_descriptors()
        assert os.path.samestat(before, os.stat(2))
        """
    )
    assert (done.returncode, done.stderr) == (0, "/dev/null\n/dev/null\n")


def refusal(path: Path) -> str:
    with pytest.raises(QMPError) as caught:
        make_socket_directory(str(path))
    return caught.value.desc


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_made(directory: Path) -> None:
    path = directory / "memd"
    make_socket_directory(f"{path}/qmp.sock")
    assert mode(path) == 0o700
    make_socket_directory(f"{path}/qmp.sock")
    assert list(path.iterdir()) == []


def test_others_that_may_get_through_the_directory(directory: Path) -> None:
    """They can't list it, nor make anything in it; and without being asked nothing changes."""
    path = directory / "memd"
    make_socket_directory(f"{path}/qmp.sock", shared=True)
    assert mode(path) == 0o711
    path.chmod(0o750)
    make_socket_directory(f"{path}/qmp.sock")
    assert mode(path) == 0o750
    make_socket_directory(f"{path}/qmp.sock", shared=True)
    assert mode(path) == 0o751


def test_no_place_for_a_socket(directory: Path) -> None:
    path = directory / "memd"
    path.mkdir()
    path.chmod(0o777)
    assert "can be written by others" in refusal(path / "qmp.sock")
    path.rmdir()
    path.write_text("")
    assert refusal(path / "qmp.sock") == f"'{path}' is not a directory"
    assert refusal(Path(f"{NOT_THERE}/memd/qmp.sock")) == (
        f"Could not create directory '{NOT_THERE}/memd': No such file or directory"
    )


@need_root
def test_somebody_elses_directory(directory: Path) -> None:
    path = directory / "memd"
    path.mkdir(0o700)
    os.chown(path, STRANGER, STRANGER)
    assert "can be written by others" in refusal(path / "qmp.sock")


WHERE = """
    def tell():
        try:
            print(default_socket_path())
        except QMPError as error:
            print(error.desc.split(":")[0])

    os.environ["XDG_RUNTIME_DIR"] = "/somewhere"
    tell()
    os.makedirs("/run/user/1")
    os.setresuid(1, 1, 1)
    for value in "/somewhere", "", "relative":
        os.environ["XDG_RUNTIME_DIR"] = value
        tell()
    del os.environ["XDG_RUNTIME_DIR"]
    tell()
"""


@need_root
def test_where_the_default_socket_is() -> None:
    """Logins without an environment have a directory all the same, unless it is missing."""
    alone = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh"]
    done = run(WHERE, prefix=alone)
    there = ["/somewhere/memd/qmp.sock", *["/run/user/1/memd/qmp.sock"] * 3]
    assert (done.stdout.splitlines(), done.stderr) == (["/run/memd/qmp.sock", *there], "")
    missing = run(WHERE.replace("/run/user/1", "/run/user/2"), prefix=alone)
    assert missing.stdout.splitlines()[2:] == ["XDG_RUNTIME_DIR is not set"] * 3
