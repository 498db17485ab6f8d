"""Every option of `Budget` is enforced exactly at its boundary, and bad options are refused before anything is paid."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, UsageMetadata
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.testing import FakeClock, ScriptedChatModel, scripted_reply
from tests.langchain.support import in_chain, metered, nanos, report_of, search, using

NewGovernor = Callable[..., ab.Governor]

INPUT, CAP = 100, 100
REPLY = scripted_reply("ok", input_tokens=INPUT, output_tokens=CAP)
"""One call of 100 tokens in and, at its cap, 100 out."""


def bound(new_governor: NewGovernor) -> tuple[int, int]:
    """What one call of the model of these tests reserves: input tokens and nano-dollars."""
    from agentbudget.trace import events

    seen: list[Any] = []
    model = ScriptedChatModel(script=[REPLY], max_tokens=CAP)
    model.invoke("hi", config=using(metered(new_governor(sinks=[seen.append]))))
    (reserved,) = (event for event in seen if isinstance(event, events.CallReserved))
    assert reserved.estimate_output == CAP
    return reserved.estimate_input, reserved.cost


def calls_until_stopped(governor: ab.Governor, turn: Any = REPLY, **limits: Any) -> int:
    """How many of ten rounds of one model call and one tool call were admitted, the model's calls counted."""
    model = ScriptedChatModel(script=[turn], repeat_last=True, max_tokens=CAP)

    def work(_: Any) -> None:
        for number in range(10):
            model.invoke("hi")
            search.invoke({"query": str(number)})

    callback = metered(governor, **limits)
    stop: ab.StopReport | None = None
    try:
        in_chain(work, callback)
    except ab.BudgetExceeded as error:
        stop = error.stop
    if stop is not None:
        assert stop.limit in limits or stop.limit.startswith("tools[")
    return len(model.calls)


@pytest.mark.parametrize("calls", [1, 3])
def test_max_model_calls_admits_exactly_so_many(governor: ab.Governor, calls: int) -> None:
    assert calls_until_stopped(governor, max_model_calls=calls) == calls


@pytest.mark.parametrize("calls", [0, 2])
def test_max_tool_calls_admits_exactly_so_many(governor: ab.Governor, calls: int) -> None:
    assert calls_until_stopped(governor, max_tool_calls=calls) == calls + 1


@pytest.mark.parametrize("calls", [0, 2])
@pytest.mark.parametrize("name", ["search", "*"])
def test_tools_admits_exactly_so_many_calls_of_a_tool(governor: ab.Governor, name: str, calls: int) -> None:
    assert calls_until_stopped(governor, tools={name: calls}) == calls + 1
    assert calls_until_stopped(governor, tools={"other": 0}) == 10


def test_max_cost_admits_a_call_that_exactly_fits_and_not_a_nano_dollar_less(new_governor: NewGovernor) -> None:
    _, cost = bound(new_governor)
    exact = Decimal(cost) / 10**9
    assert calls_until_stopped(new_governor(), max_cost=exact) == 1
    assert calls_until_stopped(new_governor(), max_cost=exact - Decimal("1e-9")) == 0


def test_max_cost_admits_the_next_call_that_exactly_fits_beside_what_was_spent(new_governor: NewGovernor) -> None:
    _, cost = bound(new_governor)
    spent = INPUT * 2_500 + CAP * 10_000

    def calls(most: int) -> int:
        governor = new_governor()
        model = ScriptedChatModel(script=[REPLY], repeat_last=True, max_tokens=CAP)
        second: list[int] = []

        def work(_: Any) -> None:
            model.invoke("hi")
            second.append(1)
            model.invoke("hi")

        try:
            RunnableLambda(work).invoke(1, config=using(metered(governor, max_cost=Decimal(most) / 10**9)))
        except ab.BudgetExceeded:
            assert second
        return len(model.calls)

    assert calls(spent + cost) == 2
    assert calls(spent + cost - cost // 2) == 1


@pytest.mark.parametrize("option", ["max_input_tokens", "max_total_tokens", "max_uncached_tokens", "max_output_tokens"])
def test_token_limits_admit_a_call_that_exactly_fits_and_not_a_token_less(
    new_governor: NewGovernor, option: str
) -> None:
    into, _ = bound(new_governor)
    needed = {"max_input_tokens": into, "max_output_tokens": CAP}.get(option, into + CAP)
    assert calls_until_stopped(new_governor(), **{option: needed}) == 1
    assert calls_until_stopped(new_governor(), **{option: needed - 1}) == 0


def test_cached_tokens_do_not_count_as_uncached(governor: ab.Governor) -> None:
    usage = UsageMetadata(input_tokens=10_000, output_tokens=1, total_tokens=10_001)
    usage["input_token_details"] = {"cache_read": 10_000}
    cached = AIMessage("ok", usage_metadata=usage)
    assert calls_until_stopped(governor, cached, max_total_tokens=25_000) < 10
    report = report_of_uncached(governor, cached)
    assert report.status == "completed"
    assert report.usage.uncached_tokens == 5


def report_of_uncached(governor: ab.Governor, turn: AIMessage) -> ab.TaskReport:
    model = ScriptedChatModel(script=[turn], repeat_last=True, max_tokens=CAP)
    callback = metered(governor, max_uncached_tokens=40_000)
    in_chain(lambda _: [model.invoke("hi") for _ in range(5)], callback)
    return report_of(callback)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_max_retries_admits_exactly_so_many_attempts_beyond_the_first(governor: ab.Governor, retries: int) -> None:
    model = ScriptedChatModel(script=[ValueError("no")], repeat_last=True, max_tokens=CAP)
    callback = metered(governor, max_retries=retries)
    with pytest.raises(ab.BudgetExceeded):
        model.with_retry(stop_after_attempt=8, wait_exponential_jitter=False).invoke("hi", config=using(callback))
    assert len(model.calls) == retries + 1
    assert report_of(callback).retries == retries


def test_max_retries_does_not_count_new_operations(governor: ab.Governor) -> None:
    assert calls_until_stopped(governor, max_retries=0) == 10


@pytest.mark.parametrize(("seconds", "calls"), [(30, 3), (30.5, 4), (29.5, 3), (10, 1)])
def test_max_seconds_refuses_the_first_call_at_or_after_the_deadline(
    clock: FakeClock, governor: ab.Governor, seconds: float, calls: int
) -> None:
    def slow(_: Any) -> AIMessage:
        clock.advance(10)
        return REPLY

    assert calls_until_stopped(governor, slow, max_seconds=seconds) == calls


def test_without_limits_everything_is_metered_and_nothing_refused(governor: ab.Governor) -> None:
    callback = metered(governor)
    ScriptedChatModel(script=[REPLY]).invoke("hi", config=using(callback))
    assert nanos(report_of(callback).cost) == INPUT * 2_500 + CAP * 10_000


@pytest.mark.parametrize("money", ["$0.50", "0.50", Decimal("0.5"), 0.5])
def test_money_may_be_written_in_every_sensible_way(money: Any) -> None:
    assert ab.Budget(max_cost=money).max_cost == 500_000_000


# -- bad input ---------------------------------------------------------------------------------------------------------

ENTRIES: dict[str, Callable[..., Any]] = {
    "Budget": ab.Budget,
    "BudgetCallback": ab.BudgetCallback,
    "task": lambda **options: ab.task("name", **options),
    "guard": lambda **options: ab.guard(RunnableLambda(str), **options),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    "options",
    [
        {"max_cost": -1},
        {"max_cost": 0},
        {"max_cost": "0"},
        {"max_cost": "abc"},
        {"max_cost": "EUR 5"},
        {"max_cost": "€5"},
        {"max_cost": math.nan},
        {"max_cost": math.inf},
        {"max_cost": Decimal("NaN")},
        {"max_cost": "Infinity"},
        {"max_cost": True},
        {"max_cost": "$99999999999999"},
        {"max_model_calls": 0},
        {"max_model_calls": -1},
        {"max_model_calls": 1.5},
        {"max_model_calls": True},
        {"max_model_calls": "3"},
        {"max_total_tokens": 2**60},
        {"max_input_tokens": 0},
        {"max_tool_calls": -1},
        {"max_retries": math.nan},
        {"max_seconds": 0},
        {"max_seconds": -3},
        {"max_seconds": math.inf},
        {"max_seconds": math.nan},
        {"max_seconds": True},
        {"max_seconds": "10"},
        {"tools": {"search": -1}},
        {"tools": {"search": None}},
        {"tools": {"": 1}},
        {"tools": ["search"]},
    ],
    ids=str,
)
def test_a_limit_that_cannot_mean_anything_is_refused_by_name(entry: str, options: dict[str, Any]) -> None:
    with pytest.raises(ab.ConfigurationError) as refused:
        ENTRIES[entry](**options)
    assert next(iter(options)) in str(refused.value)


@pytest.mark.parametrize(
    ("make", "wrong", "meant"),
    [
        (ab.Budget, "max_cst", "max_cost"),
        (ab.BudgetCallback, "max_cst", "max_cost"),
        (ab.BudgetCallback, "goveror", "governor"),
        (ENTRIES["task"], "max_modelcalls", "max_model_calls"),
        (ENTRIES["task"], "featur", "feature"),
        (ENTRIES["guard"], "max_secs", "max_seconds"),
        (ab.Governor, "legder", "ledger"),
        (ab.Governor, "on_unprised", "on_unpriced"),
        (lambda **options: ab.Limit("cost", 1, scope="team", **options), "windw", "window"),
    ],
)
def test_an_unknown_option_is_a_type_error_that_names_the_nearest_one(
    make: Callable[..., Any], wrong: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=meant) as refused:
        make(**{wrong: 1})
    assert repr(wrong) in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ab.BudgetCallback(ab.Budget(max_cost=1), max_cost=1),
        lambda: ab.task("name", ab.Budget(max_cost=1), max_seconds=1),
        lambda: ab.guard(RunnableLambda(str), ab.Budget(max_cost=1), tools={"a": 1}),
    ],
)
def test_a_budget_and_limits_together_are_a_type_error(make: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match="as well"):
        make()


def test_money_in_the_place_of_a_budget_is_a_type_error_that_says_what_to_write() -> None:
    with pytest.raises(TypeError, match="max_cost='\\$0.50'"):
        ab.BudgetCallback("$0.50")  # type: ignore[arg-type]  # what a user may try


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "dry-run"},
        {"fail": "maybe"},
        {"on_unpriced": "ignore"},
        {"trace_content": "some"},
        {"lease_seconds": 0},
        {"lease_seconds": math.nan},
        {"lease_seconds": True},
        {"limits": ["$5"]},
        {"limits": [ab.Budget(max_cost=1)]},
        {"ledger": "mongodb://x"},
        {"prices": {"gpt-x": {"input": "-1", "output": "1"}}},
        {"prices": {"gpt-x": {"input": "NaN", "output": "1"}}},
        {"prices": {"gpt-x": "cheap"}},
        {"prices": {"tool:x": "free"}},
        {"prices": "nowhere.toml"},
        {"price_file": "nowhere.json"},
        {"aliases": {"a": ""}},
    ],
    ids=str,
)
def test_a_governor_refuses_what_cannot_mean_anything(options: dict[str, Any]) -> None:
    with pytest.raises(ab.ConfigurationError):
        ab.Governor(**options)


def test_per_is_one_of_three_words() -> None:
    with pytest.raises(ab.ConfigurationError, match="'thread'"):
        ab.BudgetCallback(per="day")


def test_a_thread_budget_without_a_thread_is_refused_before_the_call(governor: ab.Governor) -> None:
    model = ScriptedChatModel(script=[REPLY])
    with pytest.raises(ab.ConfigurationError, match="thread_id"):
        model.invoke("hi", config=using(metered(governor, per="thread", max_cost=1)))
    assert model.calls == ()


def test_a_trace_that_cannot_be_written_is_refused_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "folder", tmp_path / "file" / "t.jsonl"):
        with pytest.raises(ab.ConfigurationError, match="cannot write there"):
            ab.Governor(trace=path)


@pytest.mark.parametrize("tags", [{"team": ""}, {"team": 3}, {"": "x"}, {"team": "a\nb"}, {"team": "x" * 300}], ids=str)
@pytest.mark.parametrize("entry", ["BudgetCallback", "task", "guard"])
def test_tags_that_cannot_name_anything_are_refused_at_construction(entry: str, tags: dict[str, Any]) -> None:
    with pytest.raises(ab.ConfigurationError):
        ENTRIES[entry](tags=tags)


def test_a_name_that_can_be_no_scope_is_refused_at_the_call_and_leaves_nothing_behind(
    new_governor: NewGovernor,
) -> None:
    governor = new_governor(limits=[ab.Limit("tool_calls", 5, scope="tool")])
    endless = search.model_copy(update={"name": "x" * 300})
    with pytest.raises(ab.ConfigurationError, match="200 bytes"):
        endless.invoke({"query": "a"}, config=using(metered(governor)))
