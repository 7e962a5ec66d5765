"""A machine of its own: systemd as process 1 in a container, with memd installed.

The root file system is the kept one (`rootfs`) under an overlay in memory, so
that every run begins alike and nothing of it stays. Its processes and files are
this machine's too: what the manager and memd do is looked at from outside,
through /proc.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

from memd.client import Client
from tests import rootfs
from tests.differential.harness import settle
from tests.differential.kernel import children
from tests.prefork import DIES_WITH_PARENT

TREE = Path(__file__).resolve().parents[2]

PATIENCE = 60.0
"""Seconds after which what should happen is taken never to happen."""

MODULES = "/usr/lib/python3/dist-packages"
"""Where Debian's Python finds what packages bring."""

_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
_BOOT = """
set -e
for cgroup in $CGROUPS; do
    mkdir "$cgroup"
    echo $$ >"$cgroup/cgroup.procs"
done
mount -t tmpfs -o mode=0755 memd-test "$SPACE"
mkdir "$SPACE/upper" "$SPACE/work" "$SPACE/root"
cp -a "$INSTALLED/." "$SPACE/upper"
mount -t overlay -o "lowerdir=$ROOTFS,upperdir=$SPACE/upper,workdir=$SPACE/work" \
    memd-test "$SPACE/root"
exec systemd-nspawn --quiet --boot --directory="$SPACE/root" --machine="$NAME" \
    --private-network --capability=CAP_SYS_RESOURCE --register=no $UNIT \
    --link-journal=no --settings=no </dev/null
"""
_PROGRAM = """\
#!/usr/bin/python3
import sys
from memd.cli.main import main
sys.exit(main())
"""
_DROP_IN = "of-a-test.conf"


class CannotBoot(Exception):
    """This machine can't run containers; says why."""


class Machine:
    """The container, once it is up.

    Args:
        directory: a scratch directory of its own.
        installed: what is laid over the root file system.

    Raises:
        CannotBoot: systemd-nspawn can't start it here.
    """

    def __init__(self, directory: Path, installed: Path) -> None:
        name = f"memd-test-{os.getpid()}"
        self._log = directory / "console"
        self._cgroups: list[Path] = []
        keep_unit = ""
        if not os.path.isdir("/run/systemd/system"):
            # Without a manager that gives it a cgroup, it gets one here.
            keep_unit = "--keep-unit"
            self._cgroups = [Path(at, name) for at in _HIERARCHIES if is_hierarchy(at)]
            if not self._cgroups:
                raise CannotBoot("a cgroup hierarchy that systemd can use")
        (directory / "space").mkdir()
        environment = {
            "PATH": os.environ["PATH"],
            "CGROUPS": " ".join(map(str, self._cgroups)),
            "SPACE": str(directory / "space"),
            "INSTALLED": str(installed),
            "ROOTFS": str(rootfs.place("systemd")),
            "NAME": name,
            "UNIT": keep_unit,
        }
        with self._log.open("wb") as log:
            # A test run that is killed leaves no container behind: systemd-nspawn powers it off
            # on SIGTERM; on SIGKILL it would go on.
            command = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount"]
            self._nspawn = subprocess.Popen(
                [*command, "--propagation", "private", "sh", "-c", _BOOT],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self.leader = self._wait_for_leader()
            self.run("systemctl", "is-system-running", "--wait", wanted=None)
            state = self.run("systemctl", "is-system-running", wanted=None).strip()
            # Degraded: something else of it can't run on this machine.
            if state not in ("running", "degraded"):
                raise RuntimeError(f"the container is {state}:\n{self.console()}")
        except BaseException:
            self.shut_down()
            raise

    def _wait_for_leader(self) -> int:
        """The process id of its process 1, once the manager in it takes orders."""

        def found() -> int:
            if self._nspawn.poll() is not None:
                raise CannotBoot(f"containers: {self.console().strip().rpartition(chr(10))[2]}")
            for child in children(self._nspawn.pid):
                root = Path(f"/proc/{child}/root/run/systemd/private")
                if root.is_socket():
                    return child
            return 0

        leader = settle(found, bool, PATIENCE)
        if not leader:
            raise RuntimeError(f"the container does not start:\n{self.console()}")
        return leader

    def console(self) -> str:
        """What it has said while it booted."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def path(self, inside: str) -> Path:
        """The path by which a file of the container is reached from outside."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def run(self, *command: str, wanted: int | None = 0, stdin: str = "") -> str:
        """Run a command inside, as root and outside of every sandbox; what it prints.

        Args:
            command: the program, found on PATH, and its arguments.
            wanted: the exit status that it must have; None for any.
            stdin: what it reads.
        """
        done = subprocess.run(
            [*DIES_WITH_PARENT, "nsenter", "-t", str(self.leader), "-a", *command],
            env={"PATH": "/usr/bin:/usr/sbin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"},
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if wanted is not None:
            assert done.returncode == wanted, f"{' '.join(command)}: {done.stdout}"
        return done.stdout

    def systemctl(self, *arguments: str, wanted: int | None = 0) -> str:
        """Run systemctl inside; where it fails, what memd has logged is told. See `run`."""
        try:
            return self.run("systemctl", *arguments, wanted=wanted)
        except AssertionError as failed:
            said = self.run("journalctl", "--no-pager", "--lines=30", "--unit=memd*")
            raise AssertionError(f"{failed}\n{said}") from None

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit as an operator would, until `reset`: more lines for it."""
        at = self.path(f"/etc/systemd/system/{unit}.d/{_DROP_IN}")
        at.parent.mkdir(exist_ok=True)
        at.write_text(text)
        self.systemctl("daemon-reload")

    def reset(self) -> None:
        """Stop every memd, and take away its sockets, stores, files and changes."""
        self.systemctl("stop", "memd*.socket", "memd*.service")
        self.systemctl("reset-failed")
        services = [
            row.split()[0]
            for row in self.systemctl(
                "list-units", "--all", "--plain", "--no-legend", "memd*.service"
            ).splitlines()
        ]
        if services:
            self.systemctl("clean", "--what=all", *services)
        if list(self.path("/etc/systemd/system").glob("*.wants/memd*")):
            self.systemctl("disable", "memd.socket", "memd.service")
        changed = list(self.path("/etc/systemd/system").glob(f"memd*.d/{_DROP_IN}"))
        for path in changed:
            path.unlink()
        for path in [*self.path("/etc/memd").iterdir(), *self.path("/dev/shm").iterdir()]:
            path.unlink()
        if changed:
            self.systemctl("daemon-reload")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as systemctl shows it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def pid_of(self, unit: str) -> int:
        """The process id, outside of the container, of a service's main process."""
        inside = self.show(unit, "MainPID")
        assert inside != "0", f"{unit} does not run"
        for path in Path("/proc").glob("[0-9]*/status"):
            try:
                rows = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                # It has ended meanwhile.
                continue
            numbers = rows.partition("\nNSpid:")[2].partition("\n")[0].split()
            if len(numbers) > 1 and numbers[-1] == inside and self._is_ours(path.parent):
                return int(path.parent.name)
        raise AssertionError(f"process {inside} of {unit} is not to be seen")

    def _is_ours(self, process: Path) -> bool:
        try:
            ours = os.readlink(f"/proc/{self.leader}/ns/pid")
            return os.readlink(process / "ns/pid") == ours
        except OSError:
            return False

    def journal(self, unit: str) -> str:
        """What a unit has logged, and what the manager says of it."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def client(self, socket: str = "/run/memd/qmp.sock") -> Client:
        """A client outside of the container, of a socket inside."""
        return Client(str(self.path(socket)), timeout=PATIENCE)

    def shut_down(self) -> None:
        """Power off, and take away what the container stood in."""
        leaders = children(self._nspawn.pid)
        for leader in leaders:
            # SIGRTMIN+4: systemctl poweroff (systemd(1)).
            os.kill(leader, signal.SIGRTMIN + 4)
        try:
            self._nspawn.wait(20 if leaders else 1)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        for cgroup in self._cgroups:
            settle(partial(remove_cgroup, cgroup), bool)


def install(place: Path) -> Path:
    """Lay out an installed memd as a package would, for a container's root; gives `place`."""
    built = place / "wheel"
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built)]
    subprocess.run(command, cwd=TREE, check=True, capture_output=True)
    root = place / "installed"
    modules = root / MODULES[1:]
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        archive.extractall(modules)
    # What pip puts below the prefix, /usr.
    (data,) = modules.glob("*.data")
    shutil.copytree(data / "data", root / "usr", dirs_exist_ok=True)
    shutil.rmtree(data)
    program = root / "usr/bin/memd"
    program.parent.mkdir(exist_ok=True)
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    return root


def is_hierarchy(at: str) -> bool:
    """Whether a cgroup hierarchy that systemd can use is mounted there, and can be written."""
    procs = Path(at, "cgroup.procs")
    return procs.exists() and os.access(procs, os.W_OK)


def remove_cgroup(at: Path) -> bool:
    """Remove a cgroup and all below it; whether it is gone."""
    for folder, _below, _files in os.walk(at, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True
