"""The options of the plugin: `--budget-*` on the command line, `budget_*` in the ini file or pyproject.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

MARKER: Final = (
    "budget(max_cost=None, max_total_tokens=None, max_input_tokens=None, max_output_tokens=None, "
    "max_uncached_tokens=None, max_model_calls=None, max_tool_calls=None, max_retries=None, max_seconds=None, "
    "tools={}, no_loops=False, no_unpriced=False, mode='enforce', live=None): limits on everything LangChain runs in "
    "the test, its fixtures included; the call that would break one is refused and the test fails."
)
SHARED: Final = "agentbudget_shared"
"""Where a worker of xdist finds the folder that all workers share."""
MODES: Final = ("enforce", "observe")
_LIVE: Final = ("warn", "fail", "off")
_UNPRICED: Final = ("refuse", "estimate", "allow")
_CONTENT: Final = ("hashes", "full")

_OPTIONS: Final[dict[str, tuple[str, str, str]]] = {
    "session-max": ("DOLLARS", "", "Ceiling for the whole session, shared by all xdist workers, e.g. '$5'."),
    "mode": (
        "MODE",
        "enforce",
        "A test at its limit is stopped there ('enforce') or fails at its end ('observe'), unless its marker says.",
    ),
    "baseline": ("FILE", "", "Compare each test's cost, tokens and calls with this committed JSON file."),
    "tolerance": ("PERCENT", "0", "How far scripted and replayed tests may be from the baseline."),
    "live-tolerance": ("PERCENT", "25", "How far above the baseline tests of live models may be."),
    "live": ("WHAT", "warn", "What happens to a live test beyond it: 'warn', 'fail' or 'off'."),
    "trace": ("FOLDER", "", "Write the trace of every test that runs a model there, one JSON Lines file a test."),
    "trace-content": ("WHAT", "hashes", "'hashes', or 'full': prompts and answers too, as playback needs them."),
    "prices": ("FILE", "", "TOML or YAML file of prices in front of the price data."),
    "on-unpriced": ("WHAT", "refuse", "A model without a price under a cost limit: 'refuse', 'estimate' or 'allow'."),
    "summary": ("N", "5", "How many of the dearest tests the summary names; 0 for no summary."),
}
"""By name: what it takes, its default, and what it is for."""


def add_options(parser: pytest.Parser) -> None:
    """Register every option, and the ini key that is its default."""
    group = parser.getgroup("budget", "budgets of LangChain agents (agentbudget)")
    for name, (value, default, about) in _OPTIONS.items():
        key = _key(name)
        shown = f" Default: {default}." if default else ""
        group.addoption(
            f"--budget-{name}", dest=key, metavar=value, default=None, help=f"{about}{shown} Ini key: {key}."
        )
        parser.addini(key, f"Default of --budget-{name}.", type="string", default=default)
    group.addoption(
        "--budget-update",
        action="store_true",
        default=False,
        dest="budget_update",
        help="Rewrite the baseline: entries that are right stay as they are.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the options and ini keys say. Read once, and refused at once where they cannot mean anything."""

    session_max: int | None
    """Nano-dollars."""
    mode: str
    baseline: Path | None
    update: bool
    tolerance: float
    """A share: 0.05 for 5 %."""
    live_tolerance: float
    live: str
    trace: Path | None
    trace_content: str
    prices: Path | None
    on_unpriced: str
    summary: int
    shared: str
    """In a worker of pytest-xdist the folder that all workers share; empty elsewhere."""
    root: Path
    """Where pytest was started for: paths are shown relative to it."""

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """The settings of a session.

        Raises:
            pytest.UsageError: a value that cannot mean anything, a file that is not there; the message names the
                option.
        """
        baseline = _path(config, "baseline")
        update = bool(config.getoption("budget_update"))
        if update and baseline is None:
            raise pytest.UsageError("--budget-update: there is nothing to update without --budget-baseline=FILE.")
        if baseline is not None and not update and not baseline.is_file():
            raise pytest.UsageError(f"--budget-baseline: {baseline} does not exist. Make it with --budget-update.")
        prices = _path(config, "prices")
        if prices is not None and not prices.is_file():
            raise pytest.UsageError(f"--budget-prices: {prices} does not exist.")
        return cls(
            session_max=_money(config, "session-max"),
            mode=_choice(config, "mode", MODES),
            baseline=baseline,
            update=update,
            tolerance=_share(config, "tolerance"),
            live_tolerance=_share(config, "live-tolerance"),
            live=_choice(config, "live", _LIVE),
            trace=_path(config, "trace"),
            trace_content=_choice(config, "trace-content", _CONTENT),
            prices=prices,
            on_unpriced=_choice(config, "on-unpriced", _UNPRICED),
            summary=_count(config, "summary"),
            shared=getattr(config, "workerinput", {}).get(SHARED, ""),
            root=config.rootpath,
        )

    @property
    def is_worker(self) -> bool:
        """Whether this process is a worker of pytest-xdist."""
        return bool(self.shared)

    @property
    def asks_for_all(self) -> bool:
        """Whether every test is metered, not only those with a budget of their own."""
        return self.session_max is not None or self.baseline is not None or self.trace is not None


def _key(name: str) -> str:
    return "budget_" + name.replace("-", "_")


def _text(config: pytest.Config, name: str) -> str:
    given: Any = config.getoption(_key(name))
    return str(config.getini(_key(name)) if given is None else given).strip()


def _path(config: pytest.Config, name: str) -> Path | None:
    """A path of the command line starts where pytest was invoked, one of an ini file at the root of the project."""
    text = _text(config, name)
    if not text:
        return None
    start = config.rootpath if config.getoption(_key(name)) is None else config.invocation_params.dir
    return start / Path(text).expanduser()


def _choice(config: pytest.Config, name: str, known: tuple[str, ...]) -> str:
    text = _text(config, name)
    if text not in known:
        raise pytest.UsageError(f"--budget-{name}={text}: one of {', '.join(known)}.")
    return text


def _money(config: pytest.Config, name: str) -> int | None:
    text = _text(config, name)
    if not text:
        return None
    from agentbudget.domain.money import nanos

    try:
        amount = nanos(text, what=f"--budget-{name}")
    except ValueError as problem:
        raise pytest.UsageError(str(problem)) from None
    if not amount:
        raise pytest.UsageError(f"--budget-{name}={text}: a ceiling of 0 would refuse every call.")
    return amount


def _share(config: pytest.Config, name: str) -> float:
    text = _text(config, name)
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent < float("inf"):
        raise pytest.UsageError(f"--budget-{name}={text}: a number of percent, e.g. 5.")
    return percent / 100


def _count(config: pytest.Config, name: str) -> int:
    text = _text(config, name)
    if not text.isdecimal():
        raise pytest.UsageError(f"--budget-{name}={text}: a whole number.")
    return int(text)
