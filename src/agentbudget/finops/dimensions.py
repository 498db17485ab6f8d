"""What spend can be split by, and virtual tags: rules that tag history again without running it again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

from agentbudget.errors import ConfigurationError
from agentbudget.finops.schema import KNOWN_TAGS

COLUMNS: Mapping[str, str] = {
    **{tag: tag for tag in KNOWN_TAGS},
    "model": "nullif(model, '')",
    "provider": "nullif(provider, '')",
    "tier": "nullif(tier, '')",
    "tool": "CASE WHEN kind = 'tool' THEN name END",
    "kind": "kind",
    "agent": "nullif(agent, '')",
    "node": "nullif(node, '')",
    "layer": "nullif(layer, '')",
    "outcome": "outcome",
    "name": "nullif(task_name, '')",
    "task": "nullif(task, '')",
    "root": "nullif(root, '')",
    "thread": "nullif(thread, '')",
    "hour": "strftime(ended, '%Y-%m-%dT%H:00Z')",
    "day": "strftime(ended, '%Y-%m-%d')",
    "week": "strftime(ended, '%G-W%V')",
    "month": "strftime(ended, '%Y-%m')",
}
"""Dimension → SQL over `calls`; null where a call has none. `name` is the name of the task. Times are UTC."""

TAG = "tag:"
"""Before the name of a free tag: `tag:lang`."""


def expression(dimension: str) -> str:
    """SQL of *dimension* over the view `calls`.

    Raises:
        ConfigurationError: there is no such dimension; the message has the nearest, and how to name a free tag.
    """
    if dimension.startswith(TAG) and len(dimension) > len(TAG):
        return f"tags[{quoted(dimension.removeprefix(TAG))}]"
    if dimension not in COLUMNS:
        near = get_close_matches(dimension, COLUMNS, n=1)
        meant = f", did you mean {near[0]!r}?" if near else "."
        msg = f"by={dimension!r}: no such dimension{meant} There are {', '.join(COLUMNS)}; a free tag is {TAG}NAME."
        raise ConfigurationError(msg)
    return COLUMNS[dimension]


def quoted(text: str) -> str:
    """*text* as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagRule:
    """Calls that match all of *when* get *value* as their tag; `*` in a pattern stands for anything.

    The first rule that matches a call wins. With *overwrite* it also wins over a tag that was recorded.
    """

    tag: str
    value: str
    when: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("tag", "value"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                msg = f"tag rule: {name}={text!r} is not a printable text."
                raise ConfigurationError(msg)
        if not self.when:
            msg = f"tag rule {self.tag}={self.value!r}: say when, e.g. when = {{ name = 'invoice-*' }}."
            raise ConfigurationError(msg)
        for dimension, pattern in self.when.items():
            expression(dimension)
            if not isinstance(pattern, str) or not pattern:
                msg = f"tag rule {self.tag}={self.value!r}: when.{dimension}={pattern!r} is not a pattern."
                raise ConfigurationError(msg)

    @property
    def condition(self) -> str:
        """When it applies, as SQL over `calls`."""
        return " AND ".join(
            f"coalesce({expression(dimension)}, '') LIKE {quoted(_like(pattern))} ESCAPE '!'"
            for dimension, pattern in sorted(self.when.items())
        )


@dataclass(frozen=True, slots=True)
class TagRules:
    """Rules in their order."""

    rules: tuple[TagRule, ...] = ()

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TagRules:
        """The rules of a TOML file: `[[rule]]` tables with `tag`, `value`, `when` and perhaps `overwrite`.

        Raises:
            ConfigurationError: not readable, not TOML, or a rule that cannot mean anything.
        """
        try:
            found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            msg = f"{path}: not a file of tag rules ({problem})."
            raise ConfigurationError(msg) from problem
        return cls.from_list(found.get("rule", []), where=str(path))

    @classmethod
    def from_list(cls, rules: Iterable[Mapping[str, Any]], *, where: str = "rules") -> TagRules:
        """Rules from plain values."""
        made = []
        for number, options in enumerate(rules, 1):
            try:
                made.append(TagRule(**options))
            except (TypeError, ConfigurationError) as problem:
                msg = f"{where}: rule {number}: {problem}"
                raise ConfigurationError(msg) from problem
        return cls(tuple(made))

    @property
    def tags(self) -> list[str]:
        """The tags that rules give, each once."""
        return list(dict.fromkeys(rule.tag for rule in self.rules))

    def expression(self, dimension: str) -> str:
        """SQL of *dimension* with the rules applied."""
        tag = dimension.removeprefix(TAG)
        recorded = expression(dimension if dimension in COLUMNS or dimension.startswith(TAG) else self._free(dimension))
        own = [rule for rule in self.rules if rule.tag == tag]
        over = _case([rule for rule in own if rule.overwrite])
        fill = _case([rule for rule in own if not rule.overwrite])
        return f"coalesce({over}, {recorded}, {fill})" if own else recorded

    def contradictions(self) -> list[tuple[str, str]]:
        """For each tag with several values: the tag, and SQL for calls on which its rules disagree."""
        found = []
        for tag in self.tags:
            by_value: dict[str, list[str]] = {}
            for rule in self.rules:
                if rule.tag == tag:
                    by_value.setdefault(rule.value, []).append(f"({rule.condition})")
            if len(by_value) > 1:
                hits = " + ".join(f"({' OR '.join(conditions)})::INT" for conditions in by_value.values())
                found.append((tag, f"({hits}) > 1"))
        return found

    def _free(self, dimension: str) -> str:
        return f"{TAG}{dimension}" if dimension in self.tags else dimension


def _case(rules: Sequence[TagRule]) -> str:
    if not rules:
        return "NULL"
    return "CASE " + " ".join(f"WHEN {rule.condition} THEN {quoted(rule.value)}" for rule in rules) + " END"


def _like(pattern: str) -> str:
    """*pattern* as SQL's LIKE: only `*` is special."""
    return "".join(f"!{char}" if char in "!%_" else char for char in pattern).replace("*", "%")
