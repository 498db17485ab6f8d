"""Who is told, and in which form: the bodies that each receiver documents. Pure but for `send`.

Formats: PagerDuty Events API v2, Alertmanager API v2, Slack incoming webhooks, and a generic webhook signed with
HMAC-SHA256 over timestamp and body (`t=…,v1=…`, so that a receiver can refuse what is old or forged).
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from agentbudget.errors import AgentBudgetError, ConfigurationError
from agentbudget.finops.alarms.alert import Alert

TIMEOUT = 10.0
"""Seconds that a receiver may take to answer."""
_RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_MOST_SUMMARY = 1024
_EMOJI = {
    "critical": ":rotating_light:",
    "error": ":red_circle:",
    "warning": ":warning:",
    "info": ":information_source:",
}


class DeliveryError(AgentBudgetError):
    """A receiver did not take an alert. `again`: whether trying again can help."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


class Sink(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """What failures call it."""

    @property
    def resends(self) -> bool:
        """Whether it wants every alarm again while it fires."""

    def send(self, alert: Alert) -> None:
        """Tell it.

        Raises:
            DeliveryError: it was not taken.
        """


@dataclass(frozen=True, slots=True)
class LogSink:
    """Tells the log of Python, as warnings and errors."""

    name: str = "log"
    resends: bool = False

    def send(self, alert: Alert) -> None:
        level = logging.INFO if alert.status == "resolved" or alert.severity == "info" else logging.WARNING
        level = logging.ERROR if alert.status == "firing" and alert.severity in {"critical", "error"} else level
        logging.getLogger("agentbudget.alarms").log(level, "%s: %s", alert.status, alert.summary)


@dataclass(frozen=True, slots=True)
class CallbackSink:
    """Tells a function of yours; what it raises is a failed delivery that is tried again."""

    function: Callable[[Alert], object]
    name: str = "callback"
    resends: bool = False

    def send(self, alert: Alert) -> None:
        try:
            self.function(alert)
        except Exception as error:
            msg = f"callback {self.function!r} failed: {error!r}"
            raise DeliveryError(msg, again=True) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSink:
    """A receiver over HTTP. Made by `webhook`, `slack`, `pagerduty` and `alertmanager`."""

    name: str
    url: str = field(repr=False)
    """Not shown: the URLs of webhooks are secrets."""
    body: Callable[[Alert], Any] = field(repr=False)
    headers: Callable[[bytes], Mapping[str, str]] = field(repr=False, default=lambda _body: {})
    resends: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = f"{self.name}: the URL of a receiver begins with http:// or https:// and names a host."
            raise ConfigurationError(msg)

    def send(self, alert: Alert) -> None:
        body = json.dumps(self.body(alert), separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "agentbudget", **self.headers(body)}
        request = Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310 - http(s), checked above
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 - as above
                answer.read()
        except HTTPError as refusal:
            with refusal:
                again = refusal.code in _RETRIED or refusal.code >= HTTPStatus.INTERNAL_SERVER_ERROR
                msg = f"{self.name} at {urlsplit(self.url).hostname} answered {refusal.code}"
            raise DeliveryError(msg, again=again) from None
        except (URLError, OSError) as problem:
            msg = f"{self.name} at {urlsplit(self.url).hostname} is out of reach ({problem})"
            raise DeliveryError(msg, again=True) from None


def webhook(url: str, *, secret: str | None = None, clock: Callable[[], float] | None = None) -> HttpSink:
    """Any receiver of JSON: `{"version": "1", "status": …, "alerts": [alert]}`.

    With *secret* the header `X-Agentbudget-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256 of `SECONDS.BODY`.
    """
    now = clock or (lambda: datetime.now(UTC).timestamp())

    def sign(body: bytes) -> Mapping[str, str]:
        if secret is None:
            return {}
        at = str(int(now()))
        seal = hmac.new(secret.encode(), at.encode() + b"." + body, sha256).hexdigest()
        return {"X-Agentbudget-Signature": f"t={at},v1={seal}"}

    return HttpSink(
        name="webhook",
        url=url,
        body=lambda alert: {"version": "1", "status": alert.status, "alerts": [alert.to_dict()]},
        headers=sign,
    )


def slack(url: str) -> HttpSink:
    """A channel, by an incoming webhook."""
    return HttpSink(name="slack", url=url, body=_slack)


def pagerduty(routing_key: str, *, url: str = _PAGERDUTY) -> HttpSink:
    """A service, by its integration key: triggers, and resolves by the same dedup key."""
    return HttpSink(name="pagerduty", url=url, body=lambda alert: _pagerduty(alert, routing_key))


def alertmanager(url: str) -> HttpSink:
    """Prometheus' Alertmanager at *url*; told again while an alarm fires, as it expects."""
    where = url.rstrip("/") + ("" if url.rstrip("/").endswith("/api/v2/alerts") else "/api/v2/alerts")
    return HttpSink(name="alertmanager", url=where, body=_alertmanager, resends=True)


def apprise(*urls: str) -> CallbackSink:
    """Any of the services that the library apprise knows, by its URLs; needs the extra `notify`."""
    try:
        from apprise import Apprise  # noqa: PLC0415 - an extra
    except ImportError:
        msg = 'apprise is not installed: pip install "langchain-agentbudget[notify]"'
        raise ConfigurationError(msg) from None
    service = Apprise()
    for url in urls:
        if not service.add(url):
            msg = "apprise does not know one of the URLs; each begins with the name of a service, e.g. mailto://."
            raise ConfigurationError(msg)

    def tell(alert: Alert) -> None:
        if not service.notify(body=_text(alert), title=f"agentbudget: {alert.status}"):
            msg = "apprise could not deliver"
            raise DeliveryError(msg, again=True)

    return CallbackSink(tell, name="apprise")


def _slack(alert: Alert) -> dict[str, Any]:
    mark = ":white_check_mark:" if alert.status == "resolved" else _EMOJI[alert.severity]
    fields = [{"type": "mrkdwn", "text": f"*{_escaped(key)}*\n{_escaped(value)}"} for key, value in _shown(alert)]
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": f"{mark} *{_escaped(alert.summary)}*"}}
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields[:10]})
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": f"{alert.status} at {alert.time}"}]})
    return {"text": _escaped(_text(alert)), "blocks": blocks}


def _escaped(value: object) -> str:
    """*value* without Slack's markup: a tag named `<!channel>` must not wake the channel."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:2000]


def _pagerduty(alert: Alert, routing_key: str) -> dict[str, Any]:
    told = {"routing_key": routing_key, "dedup_key": alert.key}
    if alert.status == "resolved":
        return {**told, "event_action": "resolve"}
    payload = {
        "summary": alert.summary[:_MOST_SUMMARY],
        "source": "agentbudget",
        "severity": alert.severity,
        "timestamp": alert.time,
        "component": alert.scope,
        "group": "llm-spend",
        "class": alert.kind,
        "custom_details": alert.details,
    }
    return {**told, "event_action": "trigger", "payload": payload, "client": "agentbudget"}


def _alertmanager(alert: Alert) -> list[dict[str, Any]]:
    ends = {"endsAt": alert.time} if alert.status == "resolved" else {"endsAt": _later(alert.at)}
    labels = {
        "alertname": f"AgentBudget{alert.kind.capitalize()}",
        "severity": alert.severity,
        "scope": alert.scope,
        "key": alert.key,
    }
    return [{"labels": labels, "annotations": {"summary": alert.summary, **_texts(alert)}, **ends}]


def _later(at: float) -> str:
    """When an alarm that is not told again is over: Alertmanager resolves it by itself."""
    return (datetime.fromtimestamp(at, UTC) + timedelta(minutes=15)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _texts(alert: Alert) -> dict[str, str]:
    return {key: str(value) for key, value in alert.details.items()}


def _shown(alert: Alert) -> list[tuple[str, object]]:
    return [(key.replace("_", " "), value) for key, value in alert.details.items() if value not in {None, ""}]


def _text(alert: Alert) -> str:
    return f"{'Resolved: ' if alert.status == 'resolved' else ''}{alert.summary}"
