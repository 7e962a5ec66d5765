"""A catalogue: what a QEMU offers, recorded from its binary, and read in parts.

The file begins with a line of JSON that says where each section is; a section
is JSON again, compressed. A daemon reads the file, and unpacks a section when it is
first asked for: what nobody asks costs next to nothing, and no client waits for the
file system. Of what a machine has few, such as types, devices and models of CPUs, each has
a line of its own, which is parsed when it is looked up.

A catalogue has names, types, defaults, enumerations and values, and none of
QEMU's descriptions.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.deadline import read_at_start
from memd.json_types import JSON, JSONObject

_FORMAT = "memd-catalogue"
_EDITION = 6
_HEADER_LIMIT = 1 << 16
_SECTION_LIMIT = 1 << 27
"""Bytes of a section: a catalogue of QEMU 11.1 has fewer than a hundredth of it."""

SECTIONS = (
    *("schema", "types", "rows", "devices", "machines", "cpus", "bases", "static"),
    *("full", "options", "monitor", "answers", "lists"),
)
"""The parts of a catalogue, each read by itself."""

LISTED = ("accel", "audiodev", "chardev", "cpu", "device", "display", "netdev", "nic", "object")
"""Options whose `help` lists what can be named there: the members of "lists"."""

_BY_LINE = (
    *("schema", "types", "rows", "devices", "cpus", "bases", "static", "full"),
    "options",
)
"""Those whose members are parsed one by one."""


class Members(Mapping[Any, JSON]):
    """A mapping whose values are parsed when they are looked up.

    Args:
        text: a line with the names, a JSON array, and one with each value. Where `null` stands
            for the names, they are the values' numbers.
        path: the file that it is of. Looking up what is not JSON raises `QMPError`.

    Raises:
        ValueError: the names are not JSON.
    """

    def __init__(self, text: str, path: str) -> None:
        line, *texts = text.split("\n")
        names = json.loads(line)
        self._texts = dict(enumerate(texts) if names is None else zip(names, texts, strict=True))
        self._values: dict[Any, JSON] = {}
        self._path = path

    def __getitem__(self, name: Any) -> JSON:
        if name not in self._values:
            try:
                self._values[name] = json.loads(self._texts[name])
            except ValueError:
                raise _broken(self._path) from None
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[Any]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def _broken(path: str) -> QMPError:
    return QMPError(f"'{path}' is not a catalogue of this edition")


class Catalogue:
    """An open catalogue.

    Args:
        path: the file.

    Attributes:
        version: the QEMU's: major, minor, micro.

    Raises:
        QMPError: it can't be read, or is none.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._read: JSONObject = {}
        try:
            line, _, self._packed = read_at_start(path).partition(b"\n")
            header = json.loads(line[:_HEADER_LIMIT])
            if header[_FORMAT] != _EDITION:
                raise ValueError
            places = header["sections"]
            self._places = {name: (int(places[name][0]), int(places[name][1])) for name in SECTIONS}
            self.version: tuple[int, int, int] = tuple(map(int, header["version"]))  # type: ignore[assignment]
        except OSError as error:
            raise QMPError(f"cannot read catalogue '{path}': {error.strerror}") from None
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise _broken(path) from None

    def section(self, name: str) -> JSON:
        """A section's value, which nobody may change.

        Args:
            name: one of `SECTIONS`.

        Raises:
            QMPError: it can't be read.
        """
        if name not in self._read:
            offset, length = self._places[name]
            try:
                reader = zlib.decompressobj()
                packed = memoryview(self._packed)[offset : offset + length]
                unpacked = reader.decompress(packed, _SECTION_LIMIT)
                if not reader.eof:
                    raise ValueError
                text = unpacked.decode("ascii")
                by_line = name in _BY_LINE
                self._read[name] = Members(text, self._path) if by_line else json.loads(text)
            except (zlib.error, ValueError):
                raise _broken(self._path) from None
        return self._read[name]


@functools.lru_cache(maxsize=2)
def find_catalogue(compat: Compat, path: str | None = None) -> Catalogue:
    """The catalogue of a command line, read once.

    Args:
        compat: whose catalogue where no other one is named.
        path: the one that is named.

    Raises:
        QMPError: it can't be read.
    """
    return Catalogue(packaged(compat) if path is None else path)


def packaged(compat: Compat) -> str:
    """The path of the catalogue that comes with memd for a release."""
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
    return os.path.join(directory, f"qemu-{compat.value}.catalogue")


def write_catalogue(path: str, version: tuple[int, int, int], sections: JSONObject) -> None:
    """Write a catalogue; the file is there whole or not at all.

    Args:
        path: where to.
        version: the QEMU's.
        sections: every one of `SECTIONS`.

    Raises:
        OSError: it can't be written.
    """
    places = {}
    packed = []
    offset = 0
    for name in SECTIONS:
        section = sections[name]
        if isinstance(section, list) and name in _BY_LINE:
            text = "\n".join(map(_text, (None, *section)))
        elif name in _BY_LINE:
            text = "\n".join(map(_text, ([*section], *section.values())))
        else:
            text = _text(section)
        data = zlib.compress(text.encode("ascii"), 9)
        places[name] = (offset, len(data))
        offset += len(data)
        packed.append(data)
    header = {_FORMAT: _EDITION, "version": version, "sections": places}
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(json.dumps(header).encode("ascii") + b"\n")
            file.writelines(packed)
        os.rename(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _text(value: JSON) -> str:
    # The order of members is that of complaints about them.
    return json.dumps(value, separators=(",", ":"))
