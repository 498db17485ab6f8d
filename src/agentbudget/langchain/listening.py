"""When the meter hears runs that nobody attached it to: while an object is alive that needs it to."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from agentbudget.langchain.tasks import METER


class Listening:
    """Stands where LangChain expects a context variable: its value is the meter while a listener is alive.

    Middleware cannot add a handler to the run of its agent, and summarisers, selectors and sub-agents call models where
    no middleware is asked. So the meter hears every run of the process then; it drops those nobody pays.
    """

    def __init__(self) -> None:
        self._listeners: weakref.WeakSet[object] = weakref.WeakSet()
        self._local = threading.local()

    def listen(self, listener: object) -> None:
        """Hear everything for as long as *listener* is alive."""
        self._listeners.add(listener)

    def get(self) -> BaseCallbackHandler | None:
        """The meter, or None. LangChain asks twice where the first answer is a handler: the second is then the same,
        whatever was collected in between."""
        asked_before = getattr(self._local, "asked", False)
        self._local.asked = not asked_before and len(self._listeners) > 0
        return METER if asked_before or self._local.asked else None


LISTENING = Listening()
register_configure_hook(cast("ContextVar[BaseCallbackHandler | None]", LISTENING), inheritable=True)
