"""Times on the command line: `30d`, `2026-11-01`, `2026-11-01T12:00Z`."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """The time that *text* says, in UTC where it names no zone; `30d` is so long ago.

    Raises:
        argparse.ArgumentTypeError: it says none.
    """
    ago = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if ago:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r}: write 30d, 12h, 2w or a date such as 2026-11-01"
        raise argparse.ArgumentTypeError(msg) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def add_period(parser: argparse.ArgumentParser) -> None:
    """The options --since and --until."""
    parser.add_argument("--since", type=moment, metavar="WHEN", help="only calls from then on: 30d, 12h, 2026-11-01")
    parser.add_argument("--until", type=moment, metavar="WHEN", help="only calls before then")
