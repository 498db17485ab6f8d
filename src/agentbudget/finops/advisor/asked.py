"""What every lever is given, and where it puts what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentbudget.domain.money import format_dollars
from agentbudget.errors import ConfigurationError
from agentbudget.finops.advisor.calls import Rater
from agentbudget.finops.advisor.record import Record
from agentbudget.finops.advisor.values import Lever
from agentbudget.finops.dimensions import COLUMNS, TAG, expression
from agentbudget.pricing.selfhosted import SelfHosted

_GOOD, _BAD = "('true', '1', 'yes', 'ok')", "('false', '0', 'no', 'failed')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Hardware that is paid by the hour, and what one GPU of it can do."""

    hosted: SelfHosted
    tokens_per_second: float
    """What one GPU was measured to serve at full load, prompt and output tokens together."""
    target: float = 0.65
    """The share of that at which it should run when busy."""

    def __post_init__(self) -> None:
        if self.tokens_per_second <= 0 or not 0 < self.target <= 1:
            msg = (
                f"Machine({self.hosted.model!r}, tokens_per_second={self.tokens_per_second}, target={self.target}): "
                "above 0, and a share up to 1."
            )
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user says beside the record."""

    ladder: tuple[str, ...] = ()
    """Models the user calls good enough for everything, e.g. `openai:gpt-5-mini`."""
    can_wait: tuple[str, ...] = ()
    """Names or features of tasks that need no answer today."""
    machines: tuple[Machine, ...] = ()
    success: str | None = None
    """A tag that says whether a task succeeded; None: its recorded outcome."""
    margin: float = 0.05
    """By how much another model's success rate may be lower."""
    false_halts: float = 0.05
    """The share of successes that a suggested ceiling may halt, by its 95 % upper bound."""
    least_prefix: int = 1024
    """Tokens below which no provider is taken to cache a prompt."""

    def __post_init__(self) -> None:
        for name in ("margin", "false_halts"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                msg = f"{name}={value!r}: a share between 0 and 1."
                raise ConfigurationError(msg)
        if self.least_prefix < 0:
            msg = f"least_prefix={self.least_prefix}: tokens, not negative."
            raise ConfigurationError(msg)
        for name in ("ladder", "can_wait"):
            if isinstance(getattr(self, name), str) or not all(getattr(self, name)):
                msg = f"{name}={getattr(self, name)!r}: a list of names."
                raise ConfigurationError(msg)

    @property
    def ok(self) -> str:
        """Whether a task succeeded, as SQL over `tasks`; null where nobody said."""
        if self.success is None:
            return "ok"
        tag = expression(self.success if self.success in COLUMNS else f"{TAG}{self.success}")
        word = f"lower(trim({tag}))"
        return f"CASE WHEN {word} IN {_GOOD} THEN true WHEN {word} IN {_BAD} THEN false END"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The record, the prices, what the user said; and the findings."""

    record: Record
    rater: Rater
    options: Options
    levers: list[Lever] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something that could not be judged, or is in no number."""
        self.notes.append(text)


def each(nanos: int, number: int) -> str:
    """Dollars for one of *number*."""
    return format_dollars(round(nanos / number)) if number else "$0.00"


def named(kind: str) -> str:
    """A kind of task, for people."""
    return f"'{kind}'" if kind else "tasks without a name"
