"""What a URL says about slices, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from agentbudget.errors import ConfigurationError

MAX_CALLS = 100_000
_NUMBERS = {
    "slice_lease": "lease_seconds",
    "slice_idle": "idle_seconds",
    "slice_wait": "wait_seconds",
    "slice_recall": "recall_seconds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceOptions:
    """How much is leased at once, and how long it is kept.

    Args:
        calls: calls a slice is meant for; its amount follows what recent calls reserved.
        share: a slice takes at most one part in *share* of what the limit has left, so that slices shrink towards the
            end of a budget; a call that needs more leases exactly what it needs.
        lease_seconds: how long the ledger keeps a slice that is not renewed.
        idle_seconds: after how long without a call a slice is given back.
        wait_seconds: how long a call on an event loop waits for a slice, at most.
        recall_seconds: how long a call on a thread waits for the unused slices of other processes, at most.
        journal: folder of the slice journal; None keeps none.

    Raises:
        ConfigurationError: a number that cannot be meant.
    """

    calls: int = 100
    share: int = 8
    lease_seconds: float = 900.0
    idle_seconds: float = 5.0
    wait_seconds: float = 0.25
    recall_seconds: float = 0.5
    journal: Path | None = None

    def __post_init__(self) -> None:
        for name, number in (("slice", self.calls), ("slice_share", self.share)):
            if type(number) is not int or not 1 <= number <= MAX_CALLS:
                raise ConfigurationError(f"{name}={number!r}: a whole number from 1 to {MAX_CALLS}.")
        for option, field in _NUMBERS.items():
            seconds = getattr(self, field)
            least = 0.0 if field in {"wait_seconds", "recall_seconds"} else 1e-3
            if not least <= seconds < math.inf:
                raise ConfigurationError(f"{option}={seconds!r}: a finite number of seconds, {least:g} or more.")


def split_url(url: str) -> tuple[str, SliceOptions | None]:
    """*url* without its options of slices, and those; None where it names no `slice`.

    Raises:
        ConfigurationError: an option of slices that is not known, not a number or without `slice`.
    """
    place, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    mine = {name: value for name, value in pairs if name.partition("_")[0] == "slice"}
    if not mine:
        return url, None
    if "slice" not in mine:
        raise ConfigurationError(f"ledger: {next(iter(mine))} means something only with slice=, e.g. slice=100.")
    others = urlencode([(name, value) for name, value in pairs if name not in mine])
    return f"{place}?{others}" if others else place, _options(mine)


def _options(given: Mapping[str, str]) -> SliceOptions:
    known = ("slice", "slice_share", "slice_journal", *_NUMBERS)
    for name in given:
        if name not in known:
            raise ConfigurationError(f"ledger: unknown option {name!r} in the URL; known: {', '.join(known)}.")
    try:
        seconds = {field: float(given[name]) for name, field in _NUMBERS.items() if name in given}
        counts = {
            field: int(given[name]) for name, field in (("slice", "calls"), ("slice_share", "share")) if name in given
        }
    except ValueError as error:
        raise ConfigurationError(f"ledger: an option of slices is no number: {error}.") from None
    folder = given.get("slice_journal")
    journal = Path(folder).absolute() if folder else None
    return SliceOptions(journal=journal, **counts, **seconds)  # type: ignore[arg-type]  # ints and floats by field
