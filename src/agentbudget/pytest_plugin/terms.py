"""The terms of a test: what its `budget` markers ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from agentbudget.domain.budget import LIMIT_OPTIONS, Budget
from agentbudget.domain.options import refuse_unknown
from agentbudget.errors import ConfigurationError
from agentbudget.pytest_plugin.options import MODES

_OWN = ("no_loops", "no_unpriced", "mode", "live")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Limits of one test and what else it promises."""

    budget: Budget = field(default_factory=Budget)
    mode: str = "enforce"
    no_loops: bool = False
    no_unpriced: bool = False
    live: bool | None = None
    """Whether its models are live; None: told from their classes."""
    marked: bool = False
    """Whether it has a marker at all."""

    @classmethod
    def of(cls, markers: Sequence[pytest.Mark], *, mode: str) -> Terms:
        """The terms of a test with these *markers*, the nearest first: of parameters, function, class, module. Of two
        that name the same argument the nearest counts.

        Raises:
            TypeError: an unknown argument, or a positional one. ConfigurationError: a value that cannot mean anything.
        """
        given: dict[str, object] = {}
        for marker in reversed(markers):
            if marker.args:
                msg = f"@pytest.mark.budget takes keywords only, e.g. max_cost='$0.05'; got {marker.args[0]!r}."
                raise TypeError(msg)
            given |= marker.kwargs
        refuse_unknown(given, (*LIMIT_OPTIONS, *_OWN), where="@pytest.mark.budget")
        limits = {name: value for name, value in given.items() if name in LIMIT_OPTIONS}
        own = {"mode": mode, **{name: value for name, value in given.items() if name in _OWN}}
        return _checked(Budget(**limits), own, marked=bool(markers))  # type: ignore[arg-type]  # Budget checks them


def _checked(budget: Budget, own: dict[str, object], *, marked: bool) -> Terms:
    mode, live = own["mode"], own.get("live")
    if mode not in MODES:
        msg = f"mode={mode!r}: one of {', '.join(map(repr, MODES))}."
        raise ConfigurationError(msg)
    for name in ("no_loops", "no_unpriced", "live"):
        value = own.get(name)
        if value is not None and not isinstance(value, bool):
            msg = f"{name}={value!r}: True or False."
            raise ConfigurationError(msg)
    return Terms(
        budget=budget,
        mode=str(mode),
        no_loops=bool(own.get("no_loops")),
        no_unpriced=bool(own.get("no_unpriced")),
        live=live if isinstance(live, bool) else None,
        marked=marked,
    )
