"""Unknown options are refused with a suggestion: a misspelt limit must never pass silently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def refuse_unknown(given: Mapping[str, object], known: Iterable[str], *, where: str) -> None:
    """Raise `TypeError` for the first option of *given* that is not in *known*, naming the nearest known one."""
    known = tuple(known)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known options: {', '.join(known)}."
            msg = f"{where} got an unknown option {name!r}.{hint}"
            raise TypeError(msg)
