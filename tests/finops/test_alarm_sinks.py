from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from agentbudget.domain.accounts import Account, Meter
from agentbudget.domain.alerts import Crossing
from agentbudget.errors import ConfigurationError
from agentbudget.finops.alarms.alert import Alert, of_crossing
from agentbudget.finops.alarms.delivery import ATTEMPTS, MOST_WAITING, Delivery, deliver
from agentbudget.finops.alarms.sinks import (
    CallbackSink,
    HttpSink,
    LogSink,
    alertmanager,
    apprise,
    pagerduty,
    slack,
    webhook,
)
from agentbudget.finops.alarms.state import AGAIN, HOLD, AlarmState
from tests.finops.receiver import Receiver, receiving

ALERT = Alert(
    key="burn/14.4x/team=cx/2026-11",
    kind="burn",
    severity="critical",
    scope="team=cx",
    summary="Budget of team=cx spends 18 times faster than the $432.00 that are left can last",
    at=1_793_491_200.0,
    details={"spent": "$12.00", "burn_rate": 17.5},
)
OVER = replace(ALERT, status="resolved", at=ALERT.at + 600)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def test_pagerduty_gets_an_event_of_its_api_and_resolves_by_the_same_key(receiver: Receiver) -> None:
    sink = pagerduty("R0KEY", url=f"{receiver.url}/v2/enqueue")
    sink.send(ALERT)
    sink.send(OVER)
    (path, headers, trigger), (_, _, resolve) = receiver.requests
    assert path == "/v2/enqueue"
    assert headers["Content-Type"] == "application/json"
    assert trigger == {
        "routing_key": "R0KEY",
        "dedup_key": ALERT.key,
        "event_action": "trigger",
        "client": "agentbudget",
        "payload": {
            "summary": ALERT.summary,
            "source": "agentbudget",
            "severity": "critical",
            "timestamp": "2026-11-01T00:00:00Z",
            "component": "team=cx",
            "group": "llm-spend",
            "class": "burn",
            "custom_details": {"spent": "$12.00", "burn_rate": 17.5},
        },
    }
    assert resolve == {"routing_key": "R0KEY", "dedup_key": ALERT.key, "event_action": "resolve"}


def test_alertmanager_gets_a_list_of_labelled_alerts_that_end_by_themselves_or_now(receiver: Receiver) -> None:
    sink = alertmanager(receiver.url)
    sink.send(ALERT)
    sink.send(OVER)
    (path, _, [firing]), (_, _, [over]) = receiver.requests
    assert path == "/api/v2/alerts"
    assert firing["labels"] == over["labels"]
    assert firing["labels"]["alertname"] == "AgentBudgetBurn"
    assert all(isinstance(value, str) for value in (firing["labels"] | firing["annotations"]).values())
    assert (firing["endsAt"], over["endsAt"]) == ("2026-11-01T00:15:00Z", "2026-11-01T00:10:00Z")
    assert sink.resends


def test_slack_gets_text_and_blocks_and_no_tag_wakes_the_channel(receiver: Receiver) -> None:
    slack(f"{receiver.url}/services/T0/B0/secret").send(replace(ALERT, summary="Budget of team=<!channel> & co breaks"))
    body = receiver.requests[0][2]
    assert body["text"] == "Budget of team=&lt;!channel&gt; &amp; co breaks"
    assert [block["type"] for block in body["blocks"]] == ["section", "section", "context"]
    assert body["blocks"][1]["fields"][0] == {"type": "mrkdwn", "text": "*spent*\n$12.00"}
    assert b"<!channel>" not in receiver.bodies[0]


def test_a_webhook_is_signed_over_time_and_body(receiver: Receiver) -> None:
    webhook(receiver.url, secret="s3cret", clock=lambda: 1000.0).send(ALERT)
    _, headers, body = receiver.requests[0]
    at, seal = (part.split("=", 1)[1] for part in headers["X-Agentbudget-Signature"].split(","))
    assert at == "1000"
    assert seal == hmac.new(b"s3cret", b"1000." + receiver.bodies[0], sha256).hexdigest()
    assert body == {"version": "1", "status": "firing", "alerts": [ALERT.to_dict()]}


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # in apprise itself
def test_apprise_carries_an_alert_to_the_services_it_knows(receiver: Receiver) -> None:
    sink = apprise(receiver.url.replace("http://", "json://"))
    assert deliver(ALERT, sink) is None
    assert ALERT.summary in str(receiver.requests[0][2])
    with pytest.raises(ConfigurationError, match="does not know"):
        apprise("nonsense")


def test_what_can_be_mended_is_tried_again_and_what_cannot_is_not(receiver: Receiver) -> None:
    sink, pauses = webhook(receiver.url), list[float]()
    receiver.answers = [500, 429, 202]
    assert deliver(ALERT, sink, sleep=pauses.append) is None
    assert (len(receiver.requests), len(pauses)) == (3, 2)
    receiver.answers = [400]
    failure = deliver(ALERT, sink, sleep=pauses.append)
    assert failure is not None
    assert "answered 400" in failure.reason
    assert len(receiver.requests) == 4
    receiver.answers = [503] * ATTEMPTS
    assert deliver(ALERT, sink, sleep=pauses.append) is not None
    assert len(receiver.requests) == 4 + ATTEMPTS


def test_a_receiver_out_of_reach_is_a_failure_that_names_its_host_and_no_secret() -> None:
    failure = deliver(ALERT, slack("http://127.0.0.1:9/services/T0/B0/secret"), sleep=lambda _: None)
    assert failure is not None
    assert "127.0.0.1" in failure.reason
    assert "secret" not in failure.reason
    assert "secret" not in repr(slack("http://127.0.0.1:9/services/T0/B0/secret"))


@pytest.mark.parametrize("url", ["", "ftp://x", "file:///etc/passwd", "https://"])
def test_a_url_that_is_none_is_refused_when_the_sink_is_made(url: str) -> None:
    with pytest.raises(ConfigurationError, match="begins with http"):
        HttpSink(name="webhook", url=url, body=Alert.to_dict)


def test_the_log_says_it_with_the_right_weight(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="agentbudget.alarms"):
        for alert in (ALERT, replace(ALERT, severity="warning"), OVER):
            LogSink().send(alert)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "INFO"]


def test_putting_never_waits_for_a_slow_receiver_and_the_oldest_gives_way() -> None:
    begun, go, told = threading.Event(), threading.Event(), list[str]()

    def slow(alert: Alert) -> None:
        begun.set()
        assert go.wait(30)
        told.append(alert.key)

    delivery = Delivery([CallbackSink(slow)])
    delivery.put(replace(ALERT, key="first"))
    assert begun.wait(30)
    for number in range(MOST_WAITING + 5):
        delivery.put(replace(ALERT, key=f"{number}"))
    assert delivery.dropped == 5
    assert not delivery.drain(0)
    go.set()
    assert delivery.drain(30)
    assert told == ["first", *(f"{number}" for number in range(5, MOST_WAITING + 5))]


def test_a_callback_that_raises_breaks_nothing_and_is_seen() -> None:
    def broken(_: Alert) -> None:
        raise RuntimeError("no")

    delivery = Delivery([CallbackSink(broken, name="mine"), LogSink()], sleep=lambda _: None)
    delivery.put(ALERT)
    assert delivery.drain(30)
    (failure,) = delivery.failures
    assert (failure.sink, failure.alert) == ("mine", ALERT)


def test_an_alarm_is_told_when_it_begins_and_when_it_is_over_once_each(tmp_path: Path) -> None:
    path, at = tmp_path / "alarms.sqlite", ALERT.at
    with AlarmState(path) as state:
        assert state.update([ALERT], at=at) == ([ALERT], [])
    with AlarmState(path) as state:  # the next run of a cron job
        assert state.update([ALERT], at=at + 60) == ([], [ALERT])
        assert state.firing == {ALERT.key}
        assert state.update([], at=at + 120) == ([], [])  # it flickers
        assert state.update([ALERT], at=at + 180) == ([], [ALERT])
        (over,), _ = state.update([], at=at + 180 + HOLD)
        assert (over.key, over.status, over.summary) == (ALERT.key, "resolved", ALERT.summary)
        assert state.firing == set()
        assert state.update([], at=at + 10_000) == ([], [])
        assert state.update([ALERT], at=at + 20_000) == ([ALERT], [])


def test_an_alarm_that_goes_on_is_told_again_after_a_day() -> None:
    with AlarmState() as state:
        state.update([ALERT], at=0.0)
        for hour in range(1, 24):
            assert state.update([ALERT], at=hour * 3600.0)[0] == []
        assert state.update([ALERT], at=AGAIN)[0] == [ALERT]


def test_a_threshold_that_a_settlement_reached_is_an_alert() -> None:
    account = Account((("team", "cx"),), Meter.COST, "2026-11")
    for threshold, severity in ((8000, "warning"), (10_000, "error")):
        crossing = Crossing(account=account, threshold=threshold, limit=10**11, settled=9 * 10**10, at=ALERT.at)
        alert = of_crossing(crossing)
        assert (alert.severity, alert.scope, alert.kind) == (severity, "team=cx", "threshold")
        assert alert.details["spent"] == "$90.00"


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_a_receiver_would_refuse_is_refused_at_once(key: str) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        replace(ALERT, key=key)
