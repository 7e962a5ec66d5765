"""Starts that fail, and ends at which something does: a line each, and no traceback."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.server import PATIENCE, Server, memd_argv

DUPLICATE = "attempt to add duplicate property '%s' to object (type 'container')"


def start(*options: str, descriptors: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a daemon that ends by itself."""

    def limit() -> None:
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    return subprocess.run(
        [*memd_argv(), *options],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=limit,
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--chardev", "null,id=type", "--qmp", "stdio"],
            "--chardev null,id=type: " + DUPLICATE % "type",
        ),
        (
            ["--chardev", "null,id=type", "--mon", "type"],
            "--chardev null,id=type: " + DUPLICATE % "type",
        ),
        (
            ["--compat", "11.1", "--object", "secret,id=s,data=x"]
            + ["--chardev", "null,id=c", "--mon", "c,id=s"],
            "--mon c,id=s: " + DUPLICATE % "s",
        ),
    ],
)
def test_ids_that_are_taken(options: list[str], says: str) -> None:
    done = start(*options)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"memd: {says}\n")


def test_standard_input_that_has_nothing(
    start_memd: Callable[..., Server], directory: Path
) -> None:
    """As /dev/null, which nobody can wait for: it is a client that has left."""
    server = start_memd("--qmp", "stdio")
    assert server.monitor().execute("query-status")["return"]["running"]
    done = start("--test-control", "stdio", "--qmp", f"unix:{directory}/s,server=on,wait=off")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("descriptors", range(5, 11))
def test_few_descriptors(directory: Path, descriptors: int) -> None:
    """As many as Python itself needs, and more, but too few to serve anybody."""
    done = start("--qmp", f"unix:{directory}/s,server=on,wait=off", descriptors=descriptors)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "memd: cannot start: Too many open files\n"


def test_what_can_not_be_removed_at_the_end(
    start_memd: Callable[..., Server], directory: Path, append_only: Callable[[Path], None]
) -> None:
    """A warning each; all else is done, and the status is that of an ordinary end."""
    place = directory / "place"
    place.mkdir()
    content = directory / "content"
    content.write_bytes(b"x" * 8192)
    server = start_memd(
        *("--pidfile", f"{place}/pid", "--qmp", f"unix:{place}/sock,server=on,wait=off"),
        "--object",
        f"memory-backend-file,id=m0,mem-path={content},size=8k,share=on,discard-data=on",
    )
    append_only(place)
    server.process.terminate()
    assert server.wait() == 0
    said = server.stderr()
    assert sorted(os.listdir(place)) == ["pid", "sock"]
    assert f"cannot remove the socket '{place}/sock': Operation not permitted" in said
    assert f"cannot remove the PID file '{place}/pid': Operation not permitted" in said
    assert "Traceback" not in said
    assert content.stat().st_blocks == 0
