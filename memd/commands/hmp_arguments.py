"""The arguments of a word of the human monitor, by the types that QEMU has for them.

A specification is a list of `name:type`, with a `?` behind what may be left out:

    -x  a flag                          b  on or off
    s   a text, as it is or quoted      i  a number, M one of MiB
    B   the name of a block device      o  a size, with a unit or without
    F   the name of a file              S  the rest of the line

Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re

from memd.json_types import JSONObject
from memd.qapi.numbers import parse_size, parse_uint64
from memd.qapi.visit import as_signed

BLANKS = " \t\n\v\f\r"
_WORD = re.compile(r"\S+", re.ASCII)
_TEXT = re.compile(r'"((?:[^"\\]|\\[nr\\\'"])*)"|([^\s"]\S*)', re.ASCII)
_SWITCH = re.compile("(?:on|off)(?![!-~])")
_ESCAPE = re.compile(r"\\(.)")
_SIZE = re.compile(r"0[xX][0-9a-fA-F]+|[0-9.]+[bkmgtpe]?", re.ASCII | re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_NOT_32_BITS = "integer is for 32-bit values"
_EXPECTED = {"s": "string", "S": "string", "B": "block device name", "F": "filename"}


class Usage(Exception):
    """A line that is no use of a word.

    Args:
        text: what is printed first, "" for nothing.
        word: the word.
    """

    def __init__(self, text: str, word: str) -> None:
        lines = [text] * bool(text) + [f'Try "help {word}" for more information']
        super().__init__("".join(f"{line}\r\n" for line in lines))


def arguments(names: str, typed: str, specification: str, text: str) -> JSONObject:
    """The arguments in the rest of a line.

    Args:
        names: the word's, as messages have them.
        typed: the word as it was typed.
        specification: what arguments it has.
        text: the rest.

    Raises:
        Usage: it has others.
    """
    found: JSONObject = {}
    text = text.strip(BLANKS)
    for item in filter(None, specification.split(",")):
        name, _, kind = item.partition(":")
        if kind[0] == "-":
            option = text[1:2] if text[:1] == "-" else ""
            if option == kind[1]:
                found[name], text = True, text[2:].lstrip(BLANKS)
            elif option and f":-{option}" not in specification:
                raise Usage(f"{names}: unsupported option -{option}", typed)
        elif text or kind[-1] != "?":
            try:
                found[name], end = _value(kind[0], text)
            except ValueError as error:
                what = f"{names}: {error} expected" if kind[0] in _EXPECTED else str(error)
                if what == _NOT_32_BITS:
                    what = f"'{names}' has failed: {what}"
                raise Usage(what, typed) from None
            text = text[end:].lstrip(BLANKS)
    if text:
        raise Usage(f"{names}: extraneous characters at the end of line", typed)
    return found


def _value(kind: str, text: str) -> tuple[str | int | bool, int]:
    """A value, and where it ends; raises `ValueError` where there is none."""
    if kind == "S" and text:
        return text, len(text)
    if kind in _EXPECTED:
        match = _TEXT.match(text)
        if match is None:
            raise ValueError(_EXPECTED[kind])
        quoted = match[1]
        return match[2] if quoted is None else _ESCAPE.sub(_unescaped, quoted), match.end()
    if kind == "b":
        match = _SWITCH.match(text)
        if match is None:
            raise ValueError("Expected 'on' or 'off'")
        return match[0] == "on", match.end()
    if kind == "o":
        match = _SIZE.match(text)
        size = parse_size(match[0]) if match else None
        if match is None or size is None:
            raise ValueError("invalid size")
        return size, match.end()
    match = _NUMBER.match(text)
    if match is None:
        wrong = f"invalid char '{text[0]}' in" if text else "unexpected end of"
        raise ValueError(f"{wrong} expression")
    number = parse_uint64(match[0])
    if number is None:
        raise ValueError("number too large")
    if kind == "i" and number >> 32:
        raise ValueError(_NOT_32_BITS)
    number = as_signed(number, 64)
    if kind == "M" and number < 0:
        raise ValueError("enter a positive value")
    return as_signed(number << 20, 64) if kind == "M" else number, match.end()


def words(text: str) -> list[str]:
    """What is between blanks, of which Python's own `split` knows more than QEMU."""
    return _WORD.findall(text)


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r"}.get(match[1], match[1])


def described(specification: str) -> str:
    """The arguments as help shows them."""
    words = []
    for item in filter(None, specification.split(",")):
        name, _, kind = item.partition(":")
        word = kind if kind[0] == "-" else name
        words.append(f"[{word}]" if kind[0] == "-" or kind[-1] == "?" else word)
    return " ".join(words)
