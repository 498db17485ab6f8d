"""The meter of the tests that run now."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from langchain_core.messages import BaseMessage

from agentbudget.langchain import identity
from agentbudget.langchain.meter import MeteringHandler
from agentbudget.langchain.runs import RUNS, Run
from agentbudget.pytest_plugin.governed import GovernedTest

_OURS = frozenset({"agentbudget", "langchain_core", "langchain_tests"})
"""Packages whose chat models are scripted, played back or fake."""
_PACKAGES = ("site-packages", "dist-packages")
_HERE = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - names of this machine, nothing is bound


class Gate(MeteringHandler):
    """Lets every running test pay for what LangChain runs, on top of whoever else pays for it."""

    def __init__(self, tests: Sequence[GovernedTest]) -> None:
        self._tests = tests

    def open_root(self, run: Run, root: identity.Root) -> None:  # noqa: ARG002 - the meter passes it
        """Let the running tests pay for the tree that begins, as its outermost tasks."""
        for test in tuple(self._tests):
            _append(run, test.task())

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model is about to be called."""
        self._meet(run_id, parent_run_id, live=is_live(serialized))
        super().on_chat_model_start(serialized, messages, run_id=run_id, parent_run_id=parent_run_id, **kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A text completion model is about to be called."""
        self._meet(run_id, parent_run_id, live=is_live(serialized))
        super().on_llm_start(serialized, prompts, run_id=run_id, parent_run_id=parent_run_id, **kwargs)

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A tool is about to run."""
        self._meet(run_id, parent_run_id, live=None)
        super().on_tool_start(serialized, input_str, run_id=run_id, parent_run_id=parent_run_id, **kwargs)

    def _meet(self, run_id: UUID, parent_id: UUID | None, *, live: bool | None) -> None:
        """Note a live model, and let the session's ceiling pay for the call."""
        run = RUNS.enter(run_id, identity.parent_of(parent_id))
        for test in tuple(self._tests):
            test.called = True
            test.live |= bool(live)
            if test.ceiling is not None:
                _append(run, test.ceiling.task(priced=bool(live)))


def is_live(serialized: Mapping[str, Any] | None) -> bool:
    """Whether a model is asked for real: it comes from an installed package, and its address is not on this machine.

    LangChain's fakes, this project's scripted and played-back models and any model class of the tested project itself
    are none.
    """
    names = (serialized or {}).get("id") or [""]
    package = str(names[0])
    if package in _OURS:
        return False
    installed = package.startswith("langchain") or _is_installed(package)
    return installed and not _is_here(serialized)


def _is_installed(package: str) -> bool:
    module = sys.modules.get(package)
    places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
    return any(folder in str(place) for place in places for folder in _PACKAGES)


def _is_here(serialized: Mapping[str, Any] | None) -> bool:
    options = (serialized or {}).get("kwargs")
    if not isinstance(options, Mapping):
        return False
    urls = [str(value) for name, value in options.items() if name.endswith(("base", "base_url", "api_url", "endpoint"))]
    return any(urlsplit(url).hostname in _HERE for url in urls)


def _append(run: Run, task: Any) -> None:
    if task not in run.tasks:
        run.tasks = (*run.tasks, task)
