"""What an installed memd consists of, and that it finds its schemas there."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import memd

TREE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(place / "unpacked")
    return place / "unpacked"


def test_content(wheel: Path) -> None:
    """The package, its schemas and types, what goes below the prefix, and nothing beside it."""
    assert sorted(path.name for path in wheel.iterdir()) == [
        "memd",
        f"memd_qmp-{memd.__version__}.data",
        f"memd_qmp-{memd.__version__}.dist-info",
    ]
    assert (wheel / "memd" / "py.typed").is_file()
    schemas = {path.relative_to(TREE / "schemas") for path in (TREE / "schemas").rglob("*.json")}
    packed = wheel / "memd" / "schemas"
    assert schemas
    assert {path.relative_to(packed) for path in packed.rglob("*.json")} == schemas
    sources = {path.relative_to(TREE) for path in (TREE / "memd").rglob("*.py")}
    assert {path.relative_to(wheel) for path in wheel.rglob("*.py")} == sources


def test_manual_pages(wheel: Path) -> None:
    pages = wheel / f"memd_qmp-{memd.__version__}.data" / "data" / "share" / "man"
    found = {str(path.relative_to(pages)) for path in pages.rglob("*") if path.is_file()}
    assert found == {"man1/memctl.1", "man1/memd-test.1", "man7/memd-qmp-ref.7", "man8/memd.8"}
    assert "object\\-add" in (pages / "man7" / "memd-qmp-ref.7").read_text(encoding="utf-8")


def test_documents(wheel: Path) -> None:
    """Every document that a program names is installed, and so is what documents lead to."""
    installed = wheel / f"memd_qmp-{memd.__version__}.data" / "data" / "share" / "doc" / "memd"
    named = {
        found
        for path in (TREE / "memd").rglob("*.py")
        for found in re.findall(r"\bdocs/[\w-]+\.\w+", path.read_text(encoding="utf-8"))
    }
    assert "docs/limits.md" in named
    for path in [*installed.rglob("*.md"), *(installed / name for name in named)]:
        links = re.findall(r"\]\((?!\w+:)([^)#]+)", path.read_text(encoding="utf-8"))
        for link in links:
            assert (path.parent / link).exists() or link.endswith("LICENSE"), f"{path}: {link}"


def test_scripts_lead_somewhere(wheel: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read(next(wheel.glob("*.dist-info")) / "entry_points.txt")
    scripts = dict(parser["console_scripts"])
    project = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert scripts == project["scripts"]
    lines = [
        f"from {module} import {name}" for module, name in (s.split(":") for s in scripts.values())
    ]
    run(wheel, "-c", "\n".join(lines))


def test_the_plugin_leads_somewhere(wheel: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read(next(wheel.glob("*.dist-info")) / "entry_points.txt")
    assert dict(parser["pytest11"]) == {"memd": "memd.testing.plugin"}
    run(wheel, "-c", "import memd.testing.plugin")


def test_the_schemas_are_found(wheel: Path) -> None:
    program = "from memd.qapi import load_schema; print('object-add' in load_schema().commands)"
    assert run(wheel, "-c", program) == "True\n"


def test_version(wheel: Path) -> None:
    assert memd.__version__ in run(wheel, "-m", "memd", "--version")


def run(wheel: Path, *arguments: str) -> str:
    """Run Python on the unpacked wheel, away from the tree; what it prints."""
    environment = dict(os.environ, PYTHONPATH=str(wheel))
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=wheel.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_tells_to_install_a_strangers_package() -> None:
    """`memd` and `memctl` are other people's on the package index, and memd-qmp is not there."""
    told = re.compile(
        r"""(pipx?|uv) (tool )?install\b[^`|\n]*?['"\s](memd|memctl|memd-qmp)['"`\s\[]"""
        r"""|['"\s](memd|memd-qmp)\[[a-z,]+\]['"`\s]"""
    )
    files = [
        path
        for folder in ("docs", "memd", "systemd", "schemas")
        for path in (TREE / folder).rglob("*")
    ]
    wrong = [
        f"{path.relative_to(TREE)}: {found[0]}"
        for path in [TREE / "README.md", *files]
        if path.suffix in (".md", ".py", ".json", ".service")
        for found in told.finditer(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []
