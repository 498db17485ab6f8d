"""Handlers: attached twice, copied, several at once, shared by many runs: each attempt is counted and held once."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.runnables import RunnableLambda

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel
from tests.langchain.actors import CALL, HELLO, calling, graph_of, scripted
from tests.langchain.support import report_of, using

Attach = Callable[[ScriptedChatModel, ab.BudgetCallback], tuple[Any, Any]]


def _holding(handler: ab.BudgetCallback, model: ScriptedChatModel) -> ScriptedChatModel:
    """A copy of *model* with *handler* on its constructor."""
    return model.model_copy(update={"callbacks": [handler]})


ATTACHED: dict[str, Attach] = {
    "twice in the config": lambda model, handler: (model, using(handler, handler)),
    "constructor and config": lambda model, handler: (_holding(handler, model), using(handler)),
    "with_config and config": lambda model, handler: (model.with_config(using(handler)), using(handler)),
    "with_config twice": lambda model, handler: (model.with_config(using(handler)).with_config(using(handler)), {}),
    "a copy": lambda model, handler: (model, using(handler, copy.copy(handler))),
    "a deep copy": lambda model, handler: (model, using(handler, copy.deepcopy(handler))),
    "a pickled one": lambda model, handler: (model, using(handler, pickle.loads(pickle.dumps(handler)))),
    "a callback manager": lambda model, handler: (
        model.with_config(using(handler)),
        {"callbacks": CallbackManager([handler])},
    ),
    "on a deep copy of the model": lambda model, handler: (
        _holding(handler, model).model_copy(deep=True),
        using(handler),
    ),
}


@pytest.mark.parametrize("way", ATTACHED)
@pytest.mark.parametrize("entry", ["invoke", "ainvoke", "stream", "batch"])
def test_a_handler_attached_twice_counts_once(governor: ab.Governor, way: str, entry: str) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=1, governor=governor)
    target, config = ATTACHED[way](model, callback)
    if entry == "ainvoke":
        asyncio.run(target.ainvoke("go", config))
    elif entry == "stream":
        list(target.stream("go", config))
    else:
        getattr(target, entry)(["go"] if entry == "batch" else "go", config)
    assert [(report.model_calls, report.cost) for report in callback.reports] == [(1, CALL)]
    assert len(governor.reports) == 1


def test_a_handler_attached_twice_to_a_graph_opens_one_task(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(governor=governor)
    graph = graph_of(a=calling(scripted(callbacks=[callback])), b=calling(scripted()))
    graph.compile().with_config(using(callback)).invoke(HELLO, using(callback, callback))
    assert [report.model_calls for report in governor.reports] == [2]


def test_copies_of_a_handler_are_the_handler(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(governor=governor)
    assert copy.copy(callback) is callback
    assert copy.deepcopy([callback]) == [callback]
    assert pickle.loads(pickle.dumps(callback)) is callback


def test_in_another_process_a_pickled_handler_keeps_its_budget_and_is_one_handler(governor: ab.Governor) -> None:
    callback = ab.BudgetCallback(max_cost="$0.50", tools={"search": 2}, per="callback", name="n", tags={"team": "cx"})
    code = (
        "import pickle, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "one, two = pickle.loads(data), pickle.loads(data)\n"
        "print(one is two, one.budget, one.per, one.name, one.tags)"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(callback), capture_output=True, check=True)
    assert ran.stdout.decode().strip() == f"True {callback.budget} callback n {{'team': 'cx'}}"


# -- several handlers on one run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("governors", ["same", "different"])
@pytest.mark.parametrize("bare", [True, False])
def test_of_two_handlers_both_budgets_hold(
    new_governor: Any, governors: str, order: tuple[int, int], *, bare: bool
) -> None:
    mine = new_governor()
    theirs = mine if governors == "same" else new_governor()
    tight = ab.BudgetCallback(max_output_tokens=19, governor=theirs)
    loose = ab.BudgetCallback(max_model_calls=1, governor=mine)
    handlers = [(loose, tight)[index] for index in order]
    model = scripted()
    with pytest.raises(ab.BudgetExceeded, match="max_output_tokens") as stopped:
        (model if bare else RunnableLambda(str) | model).invoke("go", using(*handlers))
    assert not model.calls
    assert stopped.value.stop.task_id == report_of(tight).task_id
    for report in (*loose.reports, *tight.reports):
        assert (report.status, report.model_calls, report.reserved) == ("stopped", 0, 0)


@pytest.mark.parametrize("governors", ["same", "different"])
@pytest.mark.parametrize("bare", [True, False])
def test_of_two_handlers_each_counts_an_attempt_once(new_governor: Any, governors: str, *, bare: bool) -> None:
    mine = new_governor()
    theirs = mine if governors == "same" else new_governor()
    first, second = ab.BudgetCallback(governor=mine), ab.BudgetCallback(governor=theirs)
    model = scripted()
    (model if bare else RunnableLambda(str) | model).invoke("go", using(first, second))
    assert [(report_of(each).model_calls, report_of(each).cost) for each in (first, second)] == [(1, CALL)] * 2
    assert report_of(first).task_id != report_of(second).task_id


def test_of_two_handlers_the_later_one_is_a_task_within_the_first_and_closes_before_it(governor: ab.Governor) -> None:
    first = ab.BudgetCallback(governor=governor, name="first", tags={"team": "cx"})
    second = ab.BudgetCallback(governor=governor, name="second")
    scripted().invoke("go", using(first, second))
    assert [(report.name, report.tags) for report in governor.reports] == [
        ("second", {"team": "cx"}),
        ("first", {"team": "cx"}),
    ]


def test_two_handlers_per_thread_keep_a_budget_each(governor: ab.Governor) -> None:
    loose = ab.BudgetCallback(max_model_calls=9, governor=governor, per="thread")
    tight = ab.BudgetCallback(max_model_calls=1, governor=governor, per="thread")
    graph = graph_of(only=calling(model := scripted())).compile()
    config: Any = {**using(loose, tight), "configurable": {"thread_id": "t"}}
    graph.invoke(HELLO, config)
    with pytest.raises(ab.BudgetExceeded):
        graph.invoke(HELLO, config)
    assert len(model.calls) == 1
    assert [report_of(each).model_calls for each in (loose, tight)] == [1, 1]


# -- one handler, many runs -------------------------------------------------------------------------------------------


def test_fifty_runs_in_threads_through_one_handler_have_a_budget_each(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=2, governor=governor)
    graph = graph_of(a=calling(model), b=calling(model)).compile()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: graph.invoke(HELLO, using(callback)), range(50)))
    assert [(report.model_calls, report.status) for report in callback.reports] == [(2, "completed")] * 50
    assert len({report.task_id for report in callback.reports}) == 50


async def test_fifty_runs_in_asyncio_through_one_handler_have_a_budget_each(governor: ab.Governor) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=2, governor=governor)

    async def node(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = graph_of(a=node, b=node).compile()
    await asyncio.gather(*(graph.ainvoke(HELLO, using(callback)) for _ in range(50)))
    assert [(report.model_calls, report.status) for report in callback.reports] == [(2, "completed")] * 50


@pytest.mark.parametrize("per", ["callback", "thread"])
def test_runs_that_begin_at_once_share_one_task(governor: ab.Governor, per: str) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_model_calls=20, governor=governor, per=per)
    config: Any = {**using(callback), "metadata": {"thread_id": "t"}}

    def once(_: int) -> int:
        try:
            model.invoke("go", config)
        except ab.BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(once, range(50))) == 20
    assert len(model.calls) == 20
    assert report_of(callback).model_calls == 20
    assert len({report.task_id for report in governor.reports}) == 1


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize("per", ["callback", "thread"])
def test_of_first_runs_that_begin_at_once_one_opens_the_task(governor: ab.Governor, per: str) -> None:
    chain, runs = RunnableLambda(str), 8
    for number in range(25):
        callback, together = ab.BudgetCallback(governor=governor, per=per), threading.Barrier(runs)
        config: Any = {**using(callback), "metadata": {"thread_id": f"t{number}"}}

        def once(_: int, config: Any = config, together: threading.Barrier = together) -> None:
            together.wait()
            chain.invoke("go", config)

        with ThreadPoolExecutor(runs) as pool:
            list(pool.map(once, range(runs)))
        assert len(callback.reports) == 1


@pytest.mark.parametrize("manager", [AsyncCallbackManager, CallbackManager])
async def test_the_handler_stops_calls_where_only_async_handlers_are_awaited(
    governor: ab.Governor, manager: Any
) -> None:
    model, callback = scripted(), ab.BudgetCallback(max_output_tokens=19, governor=governor)
    with pytest.raises(ab.BudgetExceeded):
        await model.ainvoke("go", {"callbacks": manager([callback])})
    assert not model.calls


def test_a_run_id_used_twice_is_charged_twice(governor: ab.Governor) -> None:
    import uuid

    model, callback = scripted(), ab.BudgetCallback(governor=governor, per="callback")
    config: Any = {**using(callback), "run_id": uuid.uuid4()}
    model.invoke("go", config)
    model.invoke("go", config)
    assert (report_of(callback).model_calls, report_of(callback).cost) == (2, 2 * CALL)
    balances = [governor.ledger.balance(account) for account in governor.ledger.accounts()]
    assert {balance.settled for balance in balances} == {700_000}
