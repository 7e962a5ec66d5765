"""Clients that others have written, made once and kept outside the tree.

    python3 -m tests.clients.kept

makes them, in some ten seconds, and prints where they are: a virtual environment with
what the package index has, and with the Python modules of Debian's Ganeti and autopkgtest,
which are not installed. It needs the standard library only. `programs.run` runs what uses them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.rootfs import kept, making

PACKAGES = (
    *("labgrid==26.0.1", "attrs==26.1.0", "PyYAML==6.0.4", "pexpect==4.9.0"),
    *("ptyprocess==0.7.0", "pyserial-labgrid==3.5.0.2", "xmodem==0.5.0"),
    *("avocado-framework-plugin-vt==113.0", "avocado-framework==113.0", "aexpect==1.8.0"),
    *("six==1.17.0", "setuptools==80.9.0"),
    # What Ganeti's modules import.
    *("bitarray==2.9.3", "cffi==2.1.1", "cryptography==50.0.2", "psutil==7.2.2"),
    *("pyOpenSSL==26.4.0", "simplejson==4.3.0", "typing_extensions==4.16.0"),
)
"""The clients, and of what they depend on that which their modules for QEMU import."""

RECIPE = 3
"""Goes up when what is made here changes, so that an older one is not taken for it."""


def place() -> Path:
    """Where they are or will be."""
    version = ".".join(map(str, sys.version_info[:2]))
    return kept() / f"clients-{version}-{RECIPE}"


def make() -> Path:
    """Make them unless they are there; gives their place.

    Raises:
        subprocess.CalledProcessError: pip, apt-get or dpkg-deb failed, and says why.
        OSError: one of these is missing, or room.
    """
    root = place()
    if root.is_dir():
        return root
    with making(root) as made:
        _run(sys.executable, "-m", "venv", made)
        python = made / "bin" / "python"
        pip = (python, "-m", "pip", "install", "-q", "--no-deps", "--only-binary", ":all:")
        _run(*pip, *PACKAGES)
        (modules,) = made.glob("lib/python*/site-packages")
        scratch = made / "packages"
        _unpack("autopkgtest", scratch)
        for module in (scratch / "usr/share/autopkgtest/lib").glob("*.py"):
            module.rename(modules / module.name)
        # The package of that name depends on the one of the release.
        release = re.search(r"Depends: (ganeti-[\d.]+)\n", _run("apt-cache", "depends", "ganeti"))
        if release is None:
            raise OSError("apt-cache knows no ganeti")
        _unpack(release[1], scratch)
        ganeti = scratch / "usr/share/ganeti" / release[1].removeprefix("ganeti-") / "ganeti"
        ganeti.rename(modules / "ganeti")
        shutil.rmtree(scratch)
        _run(python, "-m", "compileall", "-q", modules / "ganeti")
    return root


def _unpack(package: str, directory: Path) -> None:
    """Unpack a package of Debian's, and nothing of what it depends on."""
    directory.mkdir(exist_ok=True)
    sandbox = "APT::Sandbox::User=root"
    _run("apt-get", "-q", "-o", sandbox, "download", package, cwd=directory)
    (archive,) = directory.glob("*.deb")
    _run("dpkg-deb", "-x", archive, directory)
    archive.unlink()


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


if __name__ == "__main__":
    print(make())
