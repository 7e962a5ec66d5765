"""Small Debian systems, made once and kept outside the tree.

    python3 tests/rootfs.py systemd    # what tests/systemd boots
    python3 tests/rootfs.py bare       # what .ci/bare passes the tests in
    python3 tests/rootfs.py bare bookworm

makes one, as root, with debootstrap, in half a minute, and prints where it is. They
are used under an overlay, so nothing is ever written to them. It needs the standard
library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "trixie"
"""The release that is made unless another is named: Debian 13, systemd 257, Python 3.13."""

PACKAGES = {
    "systemd": ("systemd", "systemd-sysv", "dbus", "python3"),
    # All that the README asks for.
    "bare": ("python3", "python3-venv", "python3-pip"),
}
"""What is in each system, beside what every Debian has."""

RECIPE = 1
"""Goes up when what is made here changes, so that an older one is not taken for it."""

_MIRROR = "http://deb.debian.org/debian"
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")


def place(name: str, suite: str = SUITE) -> Path:
    """Where a system of a Debian release is or will be.

    MEMD_TEST_ROOTFS names another directory to keep it in.
    """
    named = os.environ.get("MEMD_TEST_ROOTFS")
    if named:
        keep = Path(named)
    elif os.geteuid() == 0:
        keep = Path("/var/cache/memd-tests")
    else:
        keep = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "memd-tests")
    return keep / f"{suite}-{name}-{RECIPE}"


def mirror() -> str:
    """The Debian mirror that this machine itself uses, or the one for everybody."""
    files: list[Path] = []
    for source in map(Path, _SOURCES):
        files += sorted(source.glob("*.sources")) if source.is_dir() else [source]
    for file in files:
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+/debian/?)(?:\s|$)", text, re.M)
            if found:
                return found[1]
    return _MIRROR


def make(name: str, suite: str = SUITE) -> Path:
    """Make a system unless it is there; gives its place.

    Raises:
        subprocess.CalledProcessError: debootstrap failed, and says why.
        OSError: there is no debootstrap, or no room.
    """
    root = place(name, suite)
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    # Atomic: another process may make it at the same time.
    making = Path(tempfile.mkdtemp(prefix="making-", dir=root.parent))
    try:
        making.chmod(0o755)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES[name])}"]
        subprocess.run([*command, suite, str(making), mirror()], check=True)
        shutil.rmtree(making / "var/cache/apt/archives")
        try:
            making.rename(root)
        except OSError:
            if not root.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return root


if __name__ == "__main__":
    print(make(*sys.argv[1:]))
