"""`memctl explain`: what `object-add` would do, in words."""

from __future__ import annotations

import argparse

from memd.client import Client
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.memctl.context import FAILED, OK, Context
from memd.memctl.objects import METAVAR, compat_of, parse

_NO_ID = "Parameter 'id' is missing"
_SOME_ID = "explained"


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "object",
        metavar=METAVAR,
        help="what would be made, as memd's --object takes it (or as JSON); an id may be left"
        " out, and so may 'memory-backend-' of the type",
    )
    parser.epilog = "The exit status is 0 if it would work, 1 if it would fail or can't be told."


def run(context: Context, arguments: argparse.Namespace) -> int:
    """Explain; 0 where it would work, 1 where it would fail or that can't be told."""
    from memd.cli.report import Answered

    try:
        with context.connect() as client:
            explanation = _explain(client, arguments.object)
    except Answered as answer:
        print(answer.text, end="")
        return OK
    context.tell(explanation, explanation["text"])
    return OK if explanation["verdict"] == "works" else FAILED


def _explain(client: Client, text: str) -> JSONObject:
    try:
        options = _options(text, compat_of(client))
    except QMPError as error:
        # What the command line can't say is refused there, in these words.
        return {
            "verdict": "fails",
            "error": {"class": error.error_class, "desc": error.desc},
            "warnings": [],
            "text": [f"It would fail: {error.desc}"],
        }
    explanation: JSONObject = client.execute("x-memdev-explain", options)
    if options.get("id") == _SOME_ID and "suggestion" in explanation:
        # What was not asked for is not suggested either.
        del explanation["suggestion"]["options"]["id"]
        spelled = f",id={_SOME_ID}"
        explanation["text"] = [line.replace(spelled, "", 1) for line in explanation["text"]]
    return explanation


def _options(text: str, compat: Compat) -> JSONObject:
    if text.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        # Whatever is wrong with it, the daemon explains.
        return {"id": _SOME_ID, **parse_json_argument(text, compat)}
    try:
        return parse(text, compat)
    except QMPError as error:
        if error.desc != _NO_ID:
            raise
    return parse(f"{text},id={_SOME_ID}", compat)
