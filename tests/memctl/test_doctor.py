from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import need_sys
from tests.memctl.conftest import Memctl, in_terminal
from tests.memctl.fakes import Talk, knows_nothing

STATES = {"ok", "warn", "bad"}


@need_sys
def test_this_host(memctl: Memctl) -> None:
    status, out, err = memctl("doctor")
    assert err == ""
    assert {line.split()[0] for line in out.splitlines() if line[0] != " "} <= STATES
    assert status == any(line.startswith("bad") for line in out.splitlines())
    names = [line[6:30].strip() for line in out.splitlines() if line[0] != " "]
    for name in ("memory", "kernel", "NUMA", "/dev/shm", "/dev/kvm", "THP", "open files"):
        assert name in names
    assert out.splitlines()[-1].startswith("ok    memd")


def test_without_a_daemon(memctl: Memctl, directory: Path) -> None:
    memctl.path = directory / "none.sock"
    _status, out, err = memctl("doctor")
    assert err == ""
    *_, last, advice = out.splitlines()
    assert last.startswith(f"warn  memd                    cannot connect to {memctl.path}")
    assert advice.strip().startswith("Start a daemon there: memd --qmp")


def test_a_qemu_is_no_memd(fake: Callable[[Talk], Memctl]) -> None:
    _status, out, err = fake(knows_nothing)("doctor")
    assert err == ""
    *_, last, advice = out.splitlines()
    assert last == "warn  memd                    QEMU 10.0 serves there, and no memd"
    assert advice.strip() == "Name memd's socket with -s PATH or $MEMD_SOCKET."


def test_another_root(memctl: Memctl, tmp_path: Path) -> None:
    """A host that has next to nothing: it is told, and nothing breaks."""
    status, out, err = memctl("doctor", "--root", str(tmp_path))
    assert (status, err) == (1, "")
    assert "bad   /dev/shm                is missing" in out
    assert "memd  " not in out
    # That they are not there says nothing of the kernel.
    assert "warn  /sys                    is not mounted" in out
    assert "warn  /proc                   is not mounted" in out
    assert not {"kernel", "memory", "huge pages", "THP", "KSM", "NUMA"} & {
        line[6:].split("  ")[0] for line in out.splitlines()
    }
    found = memctl("--json", "doctor", "--root", str(tmp_path))
    assert found[0] == 1


def test_json(memctl: Memctl) -> None:
    status, out, err = memctl("--json", "doctor")
    found = json.loads(out)
    assert all(sorted(each) == ["advice", "found", "name", "state"] for each in found["checks"])
    states = {each["state"] for each in found["checks"]}
    assert states <= STATES
    # The worst of them.
    assert found["state"] == next(each for each in ("bad", "warn", "ok") if each in states)
    assert (status, err) == (found["state"] == "bad", "")


def test_a_root_that_is_none(memctl: Memctl) -> None:
    status, _out, err = memctl("doctor", "--root", "/nope")
    assert (status, err) == (2, "memctl: /nope is not a directory\n")


def test_in_a_terminal(memctl: Memctl) -> None:
    _status, shown = in_terminal(memctl.path, "doctor")
    assert "\x1b[32mok" in shown
