"""What a check found, and how it is shown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from agentbudget.errors import ConfigurationError

_WIDTH = 100


class Severity(StrEnum):
    """How bad a finding is. `ERROR`: a budget does not hold. `WARNING`: it costs more, or is seen worse, than it need.
    `INFO`: something to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


_ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    code: str
    """Short name of the kind, e.g. `stop-swallowed`; what `ignore=` takes."""
    severity: Severity
    what: str
    where: str
    """Node, tool, or file and line."""
    why: str
    """What it costs."""
    fix: str

    def __str__(self) -> str:
        head = f"{self.severity.value} [{self.code}] {self.where}" if self.where else f"{self.severity} [{self.code}]"
        body = [self.what, f"Costs: {self.why}", f"Fix: {self.fix}"]
        return "\n".join([head, *(textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="    ")
                                  for line in body)])  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of `agentbudget.check`."""

    agent: str
    """What was checked."""
    findings: tuple[Finding, ...]
    """The worst first."""
    proved: tuple[str, ...]
    """What was tried and held."""
    models: tuple[str, ...]
    """Every model that was found, as `provider:name`."""
    tools: tuple[str, ...]
    """Every tool that was found."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found but things to know."""
        return all(finding.severity is Severity.INFO for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """For CI: 0 where `ok`, else 1."""
        return 0 if self.ok else 1

    def of(self, code: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.code == code)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"ok": self.ok, **asdict(self)}

    def __str__(self) -> str:
        counts = {level: sum(finding.severity is level for finding in self.findings) for level in _ORDER}
        found = ", ".join(f"{count} {level.value}{'s' * (count != 1 and level is not Severity.INFO)}"
                          for level, count in counts.items() if count)  # fmt: skip
        lines = [f"{self.agent}: {found or 'nothing found'}"]
        lines += [f"  models: {', '.join(self.models) or 'none'}", f"  tools: {', '.join(self.tools) or 'none'}"]
        lines += [f"  proved: {each}" for each in self.proved]
        lines += [f"\n{finding}" for finding in self.findings]
        return "\n".join(lines)


def report_of(
    agent: str,
    findings: Iterable[Finding],
    *,
    proved: Iterable[str],
    models: Iterable[str],
    tools: Iterable[str],
    ignore: Iterable[str],
) -> CheckReport:
    """The report without the kinds to *ignore*, each finding once, the worst first."""
    ignored = set(ignore)
    kept = {(each.code, each.where, each.what): each for each in findings if each.code not in ignored}
    return CheckReport(
        agent=agent,
        findings=tuple(sorted(kept.values(), key=lambda each: _ORDER.index(each.severity))),
        proved=tuple(proved),
        models=tuple(dict.fromkeys(models)),
        tools=tuple(dict.fromkeys(tools)),
    )


def check_codes(ignore: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a kind to ignore that does not exist.

    Raises:
        ConfigurationError: an unknown kind.
    """
    names = sorted(known)
    for code in ignore:
        if code not in names:
            msg = f"ignore={code!r}: there is no such finding; the kinds are {', '.join(names)}."
            raise ConfigurationError(msg)
