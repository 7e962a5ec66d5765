"""Where /proc or /sys is not mounted, all works that needs neither; of the rest it is said."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.client import Client
from memd.errors import QMPError
from tests.conftest import NOT_HERE
from tests.differential.server import TREE, memd_argv, running
from tests.faults.conftest import MIB, arguments


def without(places: list[str]) -> list[str]:
    """What begins the command of a process that does not see these."""
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-ec", f'umount -l {" ".join(places)}; exec "$@"', "sh"),
    ]


@pytest.fixture(params=[["/proc"], ["/sys"], ["/sys", "/proc"]], ids=" ".join)
def lacking(request: pytest.FixtureRequest) -> list[str]:
    found = [place for place in request.param if os.path.ismount(place)]
    if found != request.param:
        pytest.skip(f"{NOT_HERE}{' and '.join(request.param)}")
    done = subprocess.run([*without(found), "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{NOT_HERE}mount namespaces: {done.stderr.strip()}")
    return found


@pytest.fixture
def client(lacking: list[str], directory: Path) -> Iterator[Client]:
    place = directory / "memd"
    place.mkdir()
    with (
        running("memd", [*without(lacking), *memd_argv()], place) as server,
        Client(server.path, timeout=60) as client,
    ):
        yield client
        assert "Traceback" not in server.stderr()


def refusal(client: Client, command: str, **given: object) -> str:
    with pytest.raises(QMPError) as caught:
        client.execute(command, given)
    return caught.value.desc


def test_memory(client: Client, lacking: list[str], directory: Path) -> None:
    (directory / "file").write_bytes(b"f" * MIB)
    data = base64.b64encode(b"data").decode()
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("ram", {}),
        ("ram", {"share": True}),
        ("memfd", {"prealloc": True}),
    ]
    kinds += [("shm", {})] if os.path.ismount("/dev/shm") else []
    kinds += [
        ("file", {"mem-path": f"{directory}/file", "share": share}) for share in (True, False)
    ]
    for number, (kind, options) in enumerate(kinds):
        id, saved = f"m{number}", directory / f"saved{number}"
        given = {**arguments(kind, **options), "id": id}
        told = client.execute("x-memdev-explain", given)
        assert told["verdict"] in ("works", "unknown"), told
        client.execute("object-add", given)
        client.execute("x-memdev-write", {"id": id, "offset": 5, "data": data})
        read = {"id": id, "offset": 5, "length": 4}
        assert client.execute("x-memdev-read", read) == {"data": data}
        private = kind in ("ram", "file") and not options.get("share")
        if private and "/proc" in lacking:
            # Which pages are its own is not told.
            text = refusal(client, "x-memdev-save", id=id, filename=str(saved))
            assert text.endswith("/proc/self/pagemap is not there: /proc may not be mounted")
            assert not saved.exists()
        else:
            client.execute("x-memdev-save", {"id": id, "filename": str(saved)})
            assert saved.read_bytes()[5:9] == b"data"
        if not private:
            with client.export(id) as export:
                assert os.pread(export.fd, 4, 5) == b"data"
        if "/proc" in lacking:
            for command in ("x-memdev-stat", "x-memdev-map"):
                text = refusal(client, command, id=id)
                assert text.endswith("/proc/self/pagemap is not there: /proc may not be mounted")
    assert len(client.execute("query-memdev")) == len(kinds)


def test_what_can_not_be_seen_is_not_said_to_be_missing(client: Client, lacking: list[str]) -> None:
    told = client.execute("x-memdev-explain", arguments("memfd", hugetlb=True, size=2 * MIB))
    assert told["verdict"] == "unknown"
    said = " ".join(each["text"] for each in told["warnings"])
    assert any(f"{place} may not be mounted" in said for place in lacking)
    assert "no size" not in said


def doctor(before: list[str], *options: str) -> str:
    """What `memctl doctor` prints."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.memctl.program", *options, "doctor"],
        env={**os.environ, "PYTHONPATH": str(TREE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    return done.stdout


def test_the_doctor(lacking: list[str]) -> None:
    shown = doctor(without(lacking))
    for place in lacking:
        assert f"warn  {place} " in shown
        assert f"mount -t {place[1:]}" in shown
    # Of what is there all the same nothing is said to be missing.
    assert ("tmpfs /dev/shm" in shown) == (not os.path.ismount("/dev/shm"))
    assert "CONFIG_HUGETLBFS" not in shown


def test_the_doctor_asks_a_daemon(client: Client, lacking: list[str], directory: Path) -> None:
    """Which does not see what the doctor does."""
    shown = doctor([], "-s", f"{directory}/memd/qmp.sock")
    assert "ok    memd" in shown
    blind = "/sys" in lacking or not os.path.exists("/sys/kernel")
    assert ("warn  huge pages of memd" in shown) == blind
