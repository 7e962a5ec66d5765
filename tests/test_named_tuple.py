from __future__ import annotations

import pickle

import pytest

from memd.named_tuple import NamedTuple


class Place(NamedTuple):
    """Where something is."""

    bus: str
    slot: int = 0
    function: int = 0

    @property
    def address(self) -> str:
        return f"{self.slot}.{self.function}"

    def beside(self) -> Place:
        return self._replace(function=self.function + 1)


def test_it_is_as_that_of_typing() -> None:
    place = Place("pci.0", function=1)
    assert place == ("pci.0", 0, 1)
    assert repr(place.beside()) == "Place(bus='pci.0', slot=0, function=2)"
    assert (place.address, Place.__doc__) == ("0.1", "Where something is.")
    assert (Place._fields, Place._field_defaults) == (
        ("bus", "slot", "function"),
        {"slot": 0, "function": 0},
    )
    assert pickle.loads(pickle.dumps(place)) == place
    assert (Place.__module__, Place.__qualname__) == (__name__, "Place")
    assert not hasattr(place, "__dict__")
    with pytest.raises(AttributeError):
        place.slot = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        Place(slot=1)  # type: ignore[call-arg]
