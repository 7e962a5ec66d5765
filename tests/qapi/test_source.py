from __future__ import annotations

from memd.qapi.source import Place, Pragmas


def test_errors_tell_their_place() -> None:
    error = Place("a.json", 7).error("wrong")
    assert str(error) == "a.json:7: wrong"
    assert (error.file, error.line, error.message) == ("a.json", 7, "wrong")


def test_errors_tell_their_definition() -> None:
    assert str(Place("a.json", 7, "struct 'S'").error("wrong")) == "a.json:7: struct 'S': wrong"


def test_pragmas_at_first() -> None:
    pragmas = Pragmas()
    assert not pragmas.doc_required
    assert not any(pragmas.exceptions.values())
