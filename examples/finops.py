"""Four weeks of a help desk's agents as recorded traces, with a frontend at their end that went wild: material for the
FinOps commands. The agents are metered by the real governor; their model is a script, and the clock is moved by hand.

    python examples/finops.py demo/
    cd demo && agentbudget report traces/ --by feature,model

Written are `traces/`, `watch.toml` (budgets to watch) and `tags.toml` (rules for calls that nobody tagged).
"""

# ruff: noqa: S311 - the chance is seeded
from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import pi, sin
from pathlib import Path

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.testing import FakeClock

DAYS = 28
HOUR = 3600.0
BUG_MINUTES = 45
"""How long the frontend has been sending everything ten times by the time the traces end."""
MANUAL = "Manual of the help desk, section by section. " * 120
WATCH = """\
traces = "traces"
state = "alarms.sqlite"

[[budget]]
amount = "$40"
scope = { team = "cx" }
window = "month"

[[budget]]
amount = "$20"
scope = { team = "finance" }
window = "month"
"""
TAGS = """\
[[rule]]
tag = "feature"
value = "nightly"
when = { name = "nightly-*" }
"""


@dataclass(frozen=True)
class Kind:
    """One kind of task: its tags, its model, and the tokens of its steps."""

    name: str
    model: str
    steps: int
    read: int
    written: int
    tags: dict[str, str]
    good: float = 0.95


KINDS = (
    Kind("triage", "gpt-4o", 1, 2400, 60, {"feature": "triage", "team": "cx"}),
    Kind("answer", "gpt-4o", 4, 3200, 350, {"feature": "answer", "team": "cx"}, good=0.85),
    Kind("answer", "gpt-4o-mini", 4, 3200, 350, {"feature": "answer", "team": "cx"}, good=0.85),
    Kind("reconcile", "gpt-4o", 3, 6000, 200, {"feature": "reconcile", "team": "finance"}),
    Kind("nightly-digest", "gpt-4o", 1, 9000, 800, {"team": "finance"}),
)
_WEIGHTS = (5, 3, 2, 2, 1)


@tool
def search(query: str) -> str:
    """Search the manual."""
    return f"Everything about {query}. " * 60


class Script:
    """The answers of the model, each with the usage its kind has."""

    def __init__(self) -> None:
        self.answer = AIMessage(content="")
        self.models = {name: GenericFakeChatModel(messages=self._again(), name=name) for name in MODELS}

    def _again(self) -> Iterator[AIMessage]:
        while True:
            yield self.answer

    def ask(self, kind: Kind, question: str, step: int, dice: random.Random) -> None:
        """One call of *kind*: the manual, the question, and what was found so far."""
        read, written = kind.read + 400 * step, round(kind.written * dice.lognormvariate(0, 0.3))
        self.answer = AIMessage(
            content=f"Answer {step} to {question}",
            usage_metadata={"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
            response_metadata={"model_name": kind.model},
        )
        asked = [SystemMessage(MANUAL), HumanMessage(question), *[HumanMessage("Found: more.")] * step]
        self.models[kind.model].invoke(asked)


MODELS = tuple({kind.model for kind in KINDS})


def work(governor: ab.Governor, clock: FakeClock, script: Script, kind: Kind, dice: random.Random) -> None:
    """One task, from opening to outcome. The clock runs on."""
    question = f"Question {dice.randrange(60)} of {kind.name}?"
    tags = {**kind.tags, "user": f"u{dice.randrange(12)}"}
    with ab.task(kind.name, max_cost="$1", governor=governor, tags=tags) as task:
        for step in range(kind.steps):
            clock.advance(dice.uniform(0.4, 1.5))
            script.ask(kind, question, step, dice)
            if step + 1 < kind.steps:
                search.invoke({"query": question})
    task.outcome("resolved" if dice.random() < kind.good else "reopened", ok=dice.random() < kind.good)


def moments(dice: random.Random, end: float) -> Iterator[tuple[float, bool]]:
    """When tasks begin: the shape of a day, quiet weekends; at the end everything ten times."""
    at, wild = end - DAYS * 24 * HOUR, end - BUG_MINUTES * 60
    while at < wild:
        yield at, False
        busy = (1.15 + sin((at / HOUR % 24 - 9) / 12 * pi)) * (0.4 if at // (24 * HOUR) % 7 in {2, 3} else 1.0)
        at += dice.expovariate(2.2 * busy / HOUR)
    at = wild
    while at < end - 20:
        yield at, True
        at += 3


def record(folder: Path, end: float) -> None:
    """Write the traces of four weeks up to *end*, in seconds since 1970."""
    dice, script = random.Random(8), Script()
    clock = FakeClock(end - DAYS * 24 * HOUR)
    with closing(ab.Governor(trace=folder / "traces", clock=clock)) as governor:
        for at, wild in moments(dice, end):
            clock.advance(max(0.0, at - clock.now()))
            kind = KINDS[0] if wild else dice.choices(KINDS, _WEIGHTS)[0]
            work(governor, clock, script, kind, dice)
    (folder / "watch.toml").write_text(WATCH, encoding="utf-8")
    (folder / "tags.toml").write_text(TAGS, encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="where to write; made where there is none")
    folder = options.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    record(folder, time.time())
    print(f"{folder / 'traces'}: {DAYS} days; next: cd {folder} && agentbudget report traces/ --by feature,model")


if __name__ == "__main__":
    main()
