"""The unit files as they lie in the tree, looked at without a running systemd."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
UNITS = TREE / "systemd"

INSTANCE = {
    "[Unit] Description": ("", ", instance %i"),
    "[Unit] Requires": ("memd.socket", "memd@%i.socket"),
    "[Unit] After": ("memd.socket", "memd@%i.socket"),
    "[Service] EnvironmentFile": ("memd.conf", "memd@%i.conf"),
    "[Service] ExecStart": ("memd $", "memd --name %i $"),
    "[Service] StateDirectory": ("memd", "memd-%i"),
    "[Service] RuntimeDirectory": ("memd/qmp", "memd/%i"),
    "[Install] Also": ("memd.socket", "memd@%i.socket"),
    "[Socket] ListenStream": ("/qmp.sock", "/%i.sock"),
}
"""What an instance has of its own: of which setting, and what of it."""


def settings(name: str) -> list[tuple[str, str]]:
    """The settings of a unit file in their order, each as "[Section] Name" and its value."""
    section = ""
    found = []
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert section, f"{name}: no section yet: {line}"
            assert equals, f"{name}: no setting: {line}"
            assert key == key.strip(), f"{name}: blanks in {line}"
            found.append((f"{section} {key}", value))
    return found


def of_instance(key: str, value: str) -> str:
    """A setting's value as the template has it."""
    if key not in INSTANCE:
        return value
    old, new = INSTANCE[key]
    return value.replace(old, new) if old else value + new


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_an_instance_is_the_same_service(kind: str) -> None:
    """Whatever hardens one hardens the other."""
    one = settings(f"memd.{kind}")
    assert settings(f"memd@.{kind}") == [(key, of_instance(key, value)) for key, value in one]


def test_all_of_them_are_installed() -> None:
    """Each where systemd looks below a prefix."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))
    targets = project["tool"]["hatch"]["build"]["targets"]
    shared = targets["wheel"]["shared-data"]
    assert {name: place for name, place in shared.items() if "systemd/" in name} == {
        f"systemd/{path.name}": installed(path.name) for path in UNITS.iterdir()
    }
    assert "/systemd" in targets["sdist"]["include"]


def installed(name: str) -> str:
    """Where a file of systemd/ goes, below the prefix."""
    kind = name.rpartition(".")[2]
    if kind in ("sysusers", "tmpfiles"):
        return f"lib/{kind}.d/memd.conf"
    return f"lib/systemd/system/{name}"


@pytest.fixture
def copies(directory: Path) -> list[Path]:
    """The units, with a command that this machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze(1): it is not on PATH")
    made = []
    for path in sorted(UNITS.iterdir()):
        if path.suffix in (".service", ".socket"):
            copy = directory / path.name.replace("@", "@x")
            copy.write_text(path.read_text(encoding="utf-8").replace("=memd ", "=/bin/true "))
            made.append(copy)
    assert len(made) == 4
    return made


def test_systemd_understands_them(copies: list[Path]) -> None:
    said = analyze("verify", "--man=no", *map(str, copies))
    # Known since systemd 254.
    newer = "Unknown key 'FileDescriptorStorePreserve'"
    assert [line for line in said.splitlines() if newer not in line] == []


def test_little_is_exposed(copies: list[Path]) -> None:
    """1.5 of 10 at most: `--threshold` is in tenths."""
    for copy in copies:
        if copy.suffix == ".service":
            said = analyze("security", "--offline=yes", "--threshold=15", "--no-pager", str(copy))
            assert "Overall exposure level" in said


def analyze(*arguments: str) -> str:
    """What systemd-analyze says, which has to succeed."""
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
