"""A watch as a TOML file: budgets, receivers, and where traces, ledger and memory lie."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from agentbudget.domain.budget import Limit
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.rules import HOUR, Watched
from agentbudget.finops.alarms.sinks import LogSink, Sink, alertmanager, apprise, pagerduty, slack, webhook
from agentbudget.finops.forecasting.forecast import PlannedEvent

ENV = "env:"
"""Before the name of an environment variable, wherever a secret is wanted."""
_TOP = ("traces", "ledger", "state", "every", "budget", "sink")
_BUDGET = ("amount", "scope", "window", "timezone", "where", "react_hours", "minimum", "planned")
_SINKS: Mapping[str, tuple[str, ...]] = {
    "log": (),
    "webhook": ("url", "secret"),
    "slack": ("url",),
    "pagerduty": ("routing_key", "url"),
    "alertmanager": ("url",),
    "apprise": ("url",),
}
LEAST_SECONDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """What to watch, and whom to tell."""

    traces: str
    state: str
    every: float
    """Seconds between two looks."""
    watched: tuple[Watched, ...]
    sinks: tuple[Sink, ...]
    ledger: str | None = None
    """URL of the ledger."""


def load(path: str | PathLike[str], *, environment: Mapping[str, str] | None = None) -> WatchConfig:
    """The watch that the file describes. Relative paths in it are relative to where the command runs.

    Raises:
        ConfigurationError: what is wrong, where, and what to write.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        msg = f"{path}: not a watch file ({problem})."
        raise ConfigurationError(msg) from problem
    where = str(path)
    _known(found, _TOP, where)
    budgets, sinks = found.get("budget", []), found.get("sink", [{"kind": "log"}])
    if not budgets:
        msg = f"{where}: nothing to watch; write [[budget]] with amount, scope and window."
        raise ConfigurationError(msg)
    every = found.get("every", 60)
    if isinstance(every, bool) or not isinstance(every, int | float) or every < LEAST_SECONDS:
        msg = f"{where}: every={every!r}: seconds between two looks, at least {LEAST_SECONDS}."
        raise ConfigurationError(msg)
    secrets = os.environ if environment is None else environment
    return WatchConfig(
        traces=found.get("traces", "traces"),
        ledger=_text(found["ledger"], secrets, where) if "ledger" in found else None,
        state=found.get("state", "alarms.sqlite"),
        every=float(every),
        watched=tuple(_each(budgets, _budget, where, "budget")),
        sinks=tuple(_each(sinks, lambda entry: _sink(entry, secrets), where, "sink")),
    )


def _each(entries: list[dict[str, Any]], make: Callable[[dict[str, Any]], Any], where: str, what: str) -> list[Any]:
    made = []
    for number, entry in enumerate(entries, 1):
        try:
            made.append(make(entry))
        except (KeyError, TypeError, ConfigurationError) as problem:
            reason = f"{problem.args[0]!r} is missing" if isinstance(problem, KeyError) else problem
            msg = f"{where}: {what} {number}: {reason}"
            raise ConfigurationError(msg) from problem
    return made


def _budget(entry: dict[str, Any]) -> Watched:
    _known(entry, _BUDGET, "its keys")
    names = entry["scope"]
    if not isinstance(names, dict):
        msg = f"scope={names!r}: a table such as {{ team = 'cx' }}."
        raise ConfigurationError(msg)
    options = {key: entry[key] for key in ("window", "timezone", "where") if key in entry}
    return Watched(
        limit=Limit("cost", entry["amount"], scope=tuple(names), **options),
        names=names,
        react=float(entry.get("react_hours", 4)) * HOUR,
        minimum=entry.get("minimum", "$1"),
        planned=tuple(PlannedEvent(**event) for event in entry.get("planned", [])),
    )


def _sink(entry: dict[str, Any], secrets: Mapping[str, str]) -> Sink:
    kind = entry["kind"]
    if kind not in _SINKS:
        msg = f"kind={kind!r}: one of {', '.join(_SINKS)}."
        raise ConfigurationError(msg)
    _known(entry, ("kind", *_SINKS[kind]), f"a {kind} sink")
    given = {key: _text(value, secrets, key) for key, value in entry.items() if key != "kind"}
    match kind:
        case "log":
            return LogSink()
        case "webhook":
            return webhook(given["url"], secret=given.get("secret"))
        case "slack":
            return slack(given["url"])
        case "pagerduty":
            url = {"url": given["url"]} if "url" in given else {}
            return pagerduty(given["routing_key"], **url)
        case "alertmanager":
            return alertmanager(given["url"])
        case _:
            return apprise(given["url"])


def _text(value: object, secrets: Mapping[str, str], where: str) -> str:
    """*value*, or the environment variable that `env:NAME` names."""
    if not isinstance(value, str):
        msg = f"{where}={value!r}: a text, or {ENV}NAME of an environment variable."
        raise ConfigurationError(msg)
    if not value.startswith(ENV):
        return value
    name = value.removeprefix(ENV)
    if not secrets.get(name):
        msg = f"{where}: the environment variable {name} is not set."
        raise ConfigurationError(msg)
    return secrets[name]


def _known(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            msg = f"{where}: unknown key {key!r}; {hint}"
            raise ConfigurationError(msg)
