"""A web service whose users have plans: calls and money per minute, hour and day, shared by all its processes.

    python examples/web_service.py
    curl -s localhost:8080/ask -H 'X-User: ada' -H 'X-Plan: free' -d 'What is a ledger?'
    curl -s localhost:8080/limits -H 'X-User: ada' -H 'X-Plan: free'

The model is a stand-in here (no key, no network). A user who is over a limit is answered 429 with the seconds until
its window ends in Retry-After, and the limit in the body. Nobody has to be registered: the limits of a plan are those
of every user who has it, from the first call on. Take the user and the plan from your own session, never from a header.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import agentbudget as ab

PLANS = ("free", "pro")
ANSWER = AIMessage(
    content="A record of what was reserved and spent.",
    usage_metadata={"input_tokens": 900, "output_tokens": 80, "total_tokens": 980},
    response_metadata={"model_name": "gpt-4o-mini"},
)


def tier(plan: str, *, calls_a_minute: int, an_hour: str, a_day: str) -> list[ab.Limit]:
    """What every user of *plan* may do: a call has to fit into all of it."""
    where = {"plan": plan}
    return [
        ab.Limit("model_calls", calls_a_minute, scope="user", window="minute", where=where),
        ab.Limit("cost", an_hour, scope="user", window="hour", where=where),
        ab.Limit("cost", a_day, scope="user", window="day", where=where, alert_at=("80%", "100%")),
    ]


LIMITS = [
    *tier("free", calls_a_minute=3, an_hour="$0.01", a_day="$0.05"),
    *tier("pro", calls_a_minute=60, an_hour="$1", a_day="$5"),
    ab.Limit("cost", "$200", scope="service", window="month", alert_at=("50%", "80%", "100%")),
]


class Service(ThreadingHTTPServer):
    """The service, on this machine only; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, governor: ab.Governor, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.governor = governor
        self.model = GenericFakeChatModel(messages=iter(lambda: ANSWER, None), name="gpt-4o-mini")

    def ask(self, user: str, plan: str, question: str) -> str:
        """One answer, paid by the user and by the service. Your agent goes here.

        Raises:
            BudgetExceeded: a limit is used up.
        """
        tags = {"plan": plan, "service": "ask"}
        with ab.task("ask", user=user, tags=tags, max_cost="$0.02", governor=self.governor):
            return str(self.model.invoke(question).content)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """POST /ask: the question is the body."""
        user, plan = self._who()
        question = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path != "/ask" or plan not in PLANS or not user:
            self._answer(400, {"error": "POST /ask with X-User, and X-Plan free or pro"})
            return
        try:
            self._answer(200, {"answer": self._service.ask(user, plan, question)})
        except ab.BudgetExceeded as error:
            self._refuse(error.stop)
        except ab.ConfigurationError as error:  # a user's name that no ledger could keep
            self._answer(400, {"error": str(error)})

    def do_GET(self) -> None:
        """GET /limits: what the user has left."""
        user, plan = self._who()
        self._answer(200, self._service.governor.explain(user=user, plan=plan, service="ask").to_dict())

    def _refuse(self, stop: ab.StopReport) -> None:
        """429: which limit, and when it is worth coming back."""
        headers = {}
        if stop.resets_at is not None:
            headers["Retry-After"] = str(max(1, math.ceil(stop.resets_at - self._service.governor.clock.now())))
        told = stop.to_dict()
        self._answer(429, {name: told[name] for name in ("limit", "scope", "window", "reason", "resets_at")}, headers)

    @property
    def _service(self) -> Service:
        return cast("Service", self.server)

    def _who(self) -> tuple[str, str]:
        return self.headers.get("X-User", ""), self.headers.get("X-Plan", "")

    def _answer(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
        """Say nothing of single requests."""


def main() -> None:
    """Serve until interrupted."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ledger", default="memory:", help="redis://... shares the limits over several machines")
    options.add_argument("--port", type=int, default=8080)
    given = options.parse_args()
    logging.getLogger("langchain_core.callbacks.manager").setLevel(logging.CRITICAL)  # it logs each stop as an error
    governor = ab.Governor(
        ledger=given.ledger, limits=LIMITS, on_threshold=lambda crossing: print(f"alarm: {crossing}")
    )
    with Service(governor, given.port) as service:
        print(f"listening on http://127.0.0.1:{service.server_port}")
        try:
            service.serve_forever()
        except KeyboardInterrupt:
            governor.close()


if __name__ == "__main__":
    main()
