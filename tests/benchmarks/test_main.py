from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import __main__ as main
from benchmarks.figures import Draw, Figure, Scale, Subject, Take
from benchmarks.servers import Server


def test_sides_take_turns() -> None:
    seen = []

    def measure(scale: Scale, take: Take, draw: Draw, sides: tuple[str, ...]) -> None:
        seen.append((scale.first, sides))
        take("f", "memd", 1.0)
        draw("many", "memd", [(1.0, 2.0)])

    subject = Subject("s", (Figure("f", "F", ""),), measure)
    results, curves = main.run([subject], 2, True, ("memd", "qemu"))
    assert seen == [(True, ("memd", "qemu")), (False, ("qemu", "memd"))]
    assert results[0].values == {"memd": [1.0, 1.0]}
    assert curves == {"many": {"memd": [(1.0, 2.0)]}}


def test_names_are_unique() -> None:
    names = [figure.name for subject in main.SUBJECTS for figure in subject.figures]
    assert len(set(names)) == len(names)


def test_the_page_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{main.BEGIN}old\n{main.END}after\n")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "many.svg").write_text("<svg/>")
    monkeypatch.setattr(main, "PAGE", page)
    for _ in range(2):
        main.renew_page("new\n", folder)
    assert page.read_text() == f"before\n{main.BEGIN}\nnew\n\n{main.END}after\n"
    assert (tmp_path / "performance-many.svg").read_text() == "<svg/>"


def test_a_server_is_there_until_the_end() -> None:
    with Server("memd") as server:
        assert server.start > 0
        assert server.resident() > 0
        other = server.second()
        assert other.execute("qom-get", {"path": "/objects", "property": "type"}) == "container"
        other.close()
        paths = server.paths
    assert not paths[0].parent.exists()
