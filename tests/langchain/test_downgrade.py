"""The ladder: a task changes to a cheaper model when that saves it, once, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

import agentbudget as ab
from agentbudget.domain.verdict import StopReport
from agentbudget.governor.governor import Governor
from agentbudget.langchain.acting import Acting, Prepared, current_tasks, hand_over, prepare
from agentbudget.testing import ProviderServer, ScriptedChatModel, scripted_reply
from tests.langchain.conftest import NewGovernor
from tests.langchain.support import anthropic, openai, search

PRICES = {
    "dear": {"input": "10", "output": "40", "cache_read": "1"},
    "middle": {"input": "5", "output": "20", "cache_read": "5"},
    "cheap": {"input": "1", "output": "4", "cache_read": "0.1"},
}
ASK: list[BaseMessage] = [HumanMessage("a")]


def model(name: str, cap: int | None = 1_000, **profile: Any) -> ScriptedChatModel:
    """A model that writes 100 tokens an answer."""
    reply = scripted_reply("ok", input_tokens=100, output_tokens=100)
    made = ScriptedChatModel(script=[reply], repeat_last=True, model_name=name, max_tokens=cap)
    return made.model_copy(update={"profile": profile}) if profile else made


def after(read: int, written: int, *, cached: int = 0) -> list[BaseMessage]:
    """A conversation whose last answer was reported with this usage."""
    usage: Any = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    if cached:
        usage["input_token_details"] = {"cache_read": cached}
    answer = AIMessage("ok", usage_metadata=usage, response_metadata={"model_name": "dear"})
    return [HumanMessage("a"), answer, HumanMessage("b")]


def chosen(
    options: Acting,
    messages: list[BaseMessage] = ASK,
    params: Mapping[str, Any] | None = None,
    source: BaseChatModel | None = None,
) -> str:
    """The name of the model that a call would go to."""
    prepared = prepare(source or model("dear"), messages, params or {}, current_tasks(), options)
    assert isinstance(prepared, Prepared), prepared
    with hand_over(prepared):
        pass
    assert isinstance(prepared.model, ScriptedChatModel)
    return prepared.model.model_name


@pytest.fixture
def governor(new_governor: NewGovernor) -> Governor:
    return new_governor(prices=PRICES)


def test_a_model_that_cannot_answer_in_full_gives_way_to_one_that_can(governor: Governor) -> None:
    options = Acting.of(downgrade=[model("middle"), model("cheap")])
    with ab.task("poor", max_cost="$0.01", governor=governor):
        assert chosen(options) == "cheap"


def test_a_task_goes_down_the_ladder_and_never_up(governor: Governor) -> None:
    options = Acting.of(downgrade=[model("cheap")])
    with ab.task("poor", max_cost="$0.01", governor=governor) as task:
        assert chosen(options) == "cheap"
        task.top_up("$10")
        assert chosen(options) == "cheap"
    with ab.task("another", max_cost="$1", governor=governor):
        assert chosen(options) == "dear"


def test_a_projected_overrun_is_acted_on_before_the_money_is_gone(governor: Governor) -> None:
    options = Acting.of(downgrade=[model("cheap")])
    with ab.task("long", max_cost="$0.50", governor=governor):
        assert chosen(options, after(1_000, 100)) == "dear"
    with ab.task("longer", max_cost="$0.50", governor=governor):
        assert chosen(options, after(30_000, 100)) == "cheap"


def test_a_switch_that_only_loses_the_prompt_cache_is_not_made(governor: Governor) -> None:
    options = Acting.of(downgrade=[model("middle")])
    with ab.task("cached", max_cost="$0.50", governor=governor):
        assert chosen(options, after(30_000, 100, cached=29_000)) == "dear"
    with ab.task("cold", max_cost="$0.50", governor=governor):
        assert chosen(options, after(30_000, 100)) == "middle"


def test_a_switch_is_recorded_once_with_its_numbers(governor: Governor) -> None:
    ladder = ab.governed(model("dear"), downgrade=[model("cheap")])
    with ab.task("recorded", max_cost="$0.50", governor=governor) as task:
        for _ in range(3):
            ladder.invoke(after(30_000, 100))
    (action,) = task.report.actions
    assert action["action"] == "downgrade"
    assert (action["numbers"]["from"], action["numbers"]["to"]) == ("dear", "cheap")
    assert action["numbers"]["switch"] < action["numbers"]["left"] < action["numbers"]["stay"]
    assert "cold prompt cache" in action["reason"]


@pytest.mark.parametrize(
    ("params", "profile"),
    [
        ({"tools": [search]}, {"tool_calling": False}),
        ({"response_format": {"type": "json_schema"}}, {"structured_output": False}),
        ({}, {"max_input_tokens": 3}),
    ],
    ids=["tools", "structured output", "context window"],
)
def test_a_target_that_cannot_do_the_call_is_passed_over(
    params: Mapping[str, Any], profile: dict[str, Any], governor: Governor
) -> None:
    options = Acting.of(downgrade=[model("middle", **profile), model("cheap")])
    options.checked.add(governor)  # a ladder without tools is refused at the first call
    with ab.task("poor", max_cost="$0.035", governor=governor):
        assert chosen(options, params=params) == "cheap"


def test_images_stay_with_models_that_see(governor: Governor) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    options = Acting.of(downgrade=[model("middle", image_inputs=False), model("cheap", image_inputs=True)])
    with ab.task("poor", max_cost="$0.05", governor=governor):
        assert chosen(options, [HumanMessage([image])]) == "cheap"


class OtherClient(ScriptedChatModel):
    """A model of another class."""


@pytest.mark.parametrize("native", [True, False], ids=["native", "none"])
def test_native_structured_output_stays_with_models_of_its_class(native: bool, governor: Governor) -> None:
    other = OtherClient(script=[AIMessage("ok")], model_name="cheap", max_tokens=1_000)
    params = {"response_format": {"type": "json_schema"}} if native else {}
    with ab.task("poor", max_cost="$0.01", governor=governor):
        if native:
            found = prepare(model("dear"), ASK, params, current_tasks(), Acting.of(downgrade=[other]))
            assert isinstance(found, StopReport)
        else:
            assert chosen(Acting.of(downgrade=[other]), params=params) == "cheap"


def test_a_route_begins_with_the_model_of_the_feature(governor: Governor) -> None:
    options = Acting.of(model_for={"triage": model("cheap")})
    with ab.task("a", max_cost="$1", governor=governor, feature="triage"):
        assert chosen(options) == "cheap"
    with ab.task("b", max_cost="$1", governor=governor, tags={"kind": "triage"}):
        assert chosen(options) == "cheap"
    with ab.task("c", max_cost="$1", governor=governor, feature="support"):
        assert chosen(options) == "dear"


def test_names_are_resolved_when_the_options_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    (made,) = Acting.of(downgrade="openai:gpt-5-mini").downgrade
    assert made._get_ls_params().get("ls_model_name") == "gpt-5-mini"


@pytest.mark.parametrize(
    "options",
    [
        {"downgrade": ["nobody:nothing"]},
        {"downgrade": [3]},
        {"model_for": {"triage": None}},
        {"wait": -1},
        {"wait": float("nan")},
        {"wait": True},
        {"min_output_tokens": 0},
        {"min_output_tokens": 1.5},
    ],
)
def test_options_that_cannot_mean_anything_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ab.ConfigurationError):
        Acting.of(**options)


@pytest.mark.parametrize(
    ("ladder", "params", "says"),
    [
        ([model("cheap"), model("middle")], {}, "dearer"),
        ([model("nobody-prices-this")], {}, "no price"),
        ([model("cheap", tool_calling=False)], {"tools": [search]}, "tools"),
    ],
    ids=["a target dearer than the one above", "a target without a price", "a target without tools"],
)
def test_a_ladder_that_cannot_work_is_refused_at_the_first_call(
    ladder: list[BaseChatModel], params: dict[str, Any], says: str, governor: Governor
) -> None:
    with ab.task("bad", max_cost="$1", governor=governor), pytest.raises(ab.ConfigurationError, match=says):
        prepare(model("dear"), ASK, params, current_tasks(), Acting.of(downgrade=ladder))


def test_tools_are_bound_anew_for_a_model_of_another_provider(new_governor: NewGovernor) -> None:
    governor = new_governor(prices={"gpt-4o": {"input": "100", "output": "400"}})
    with ProviderServer() as server:
        ladder = ab.governed(openai(server), downgrade=[anthropic(server)]).bind_tools([search])
        with ab.task("other", max_cost="$0.10", governor=governor):
            ladder.invoke("a")
    (request,) = server.requests
    assert request.path == "/messages"
    assert [each["name"] for each in request.body["tools"]] == ["search"]
    assert "input_schema" in request.body["tools"][0]
