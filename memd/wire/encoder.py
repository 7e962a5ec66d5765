"""Values out, in QEMU's form.

The C encoder of the standard library writes nearly everything as QEMU does;
what it writes otherwise (doubles, escapes by number) and what it cannot
write (infinities, nesting beyond Python's recursion limit) is left to `printer`.
"""

from __future__ import annotations

from _json import encode_basestring, encode_basestring_ascii, make_encoder

from memd.json_types import JSON

_MANY = 1000


def _refuse(value: object) -> object:
    raise TypeError(f"no JSON value: {value!r}")


# No look-out for circles, one line, ": " and ", ", the members' own order, no names for
# infinities (ValueError instead).
_encode_ascii = make_encoder(
    None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False
)
# The same, with what is not ASCII as it is, which is seen at once then.
_encode = make_encoder(None, _refuse, encode_basestring, None, ": ", ", ", False, False, False)


def encode(value: JSON, pretty: bool = False) -> bytes:
    r"""An answer's bytes: ASCII, one line (several where `pretty`), "\r\n" at the end.

    Args:
        value: dicts with str keys, lists, str, int, float, bool, None.
        pretty: indent by four spaces, as `-mon ...,pretty=on` does.

    Raises:
        TypeError: something in `value` is none of those.

    Escapes are \" \\ \b \f \n \r \t, and \uXXXX in upper-case hexadecimal for other
    control characters, DEL and whatever is not ASCII (surrogate pairs beyond
    U+FFFF); what is not a valid character becomes \uFFFD. Doubles are `%.17g`, so
    that 1.0 is written 1 and an infinity `inf`. Observed on QEMU 10.0.2 and 11.1.3.
    """
    if not pretty:
        try:
            text = "".join(_encode(value, 0))
        except (ValueError, RecursionError):
            pass
        else:
            if text.isascii() and not ("\\u" in text or "\x7f" in text or _may_hold_double(text)):
                return (text + "\r\n").encode("ascii")
    from memd.wire.printer import print_value

    return print_value(value, pretty, "\r\n").encode("ascii")


def encode_request(value: JSON) -> bytes:
    """A request's bytes, as a client sends them: ASCII, one line.

    What is not a character goes as the escape of its surrogate, which servers refuse.

    Raises:
        ValueError: JSON has no such number (NaN, an infinity), or it is nested too deeply.
        TypeError: something in `value` is nothing that JSON has.
    """
    try:
        return ("".join(_encode_ascii(value, 0)) + "\n").encode("ascii")
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _may_hold_double(text: str) -> bool:
    """Whether there is a double in what the C encoder wrote, or in a string what looks like one.

    Each has a point or a signed exponent after its first digits, and stands at the start, or
    after a bracket or a space. (A regular expression takes ten times as long over a long text.)
    """
    for mark in (".", "e+", "e-"):
        at = text.find(mark)
        if at >= 0 and text.count(mark) > _MANY:
            # To go through them all takes longer than the printer does.
            return True
        while at >= 0:
            before = at - 1
            while before >= 0 and text[before] in "0123456789":
                before -= 1
            if before < at - 1:
                if before >= 0 and text[before] == "-":
                    before -= 1
                if before < 0 or text[before] in "[ ":
                    return True
            at = text.find(mark, at + 1)
    return False
