"""The ceiling of the session, and the summary."""

from __future__ import annotations

import json
import re

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]

MANY = """
    @pytest.mark.parametrize("n", range(12))
    def test_it(n):
        run(1)
"""


def test_all_tests_of_all_workers_share_the_ceiling(project: Project, workers: int) -> None:
    """12 tests at $0.0035 against $0.02: a call may need up to about $0.0067, so four or five fit."""
    project.tests(MANY)
    result = project.run("--budget-session-max=$0.02", workers=workers)
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes["failed"] == 12
    spent = re.search(r"\$(0\.\d+) in", project.said(result))
    assert spent is not None
    assert float(spent[1]) <= 0.02
    assert 3 <= outcomes["passed"] <= 5
    assert "--budget-session-max is $0.02 for all tests together" in project.said(result)
    assert re.search(r"\d+% of --budget-session-max \$0.02", project.said(result))


def test_a_cheaper_test_may_go_on_after_a_dear_one_was_refused(project: Project) -> None:
    project.tests("""
        def test_dear():
            run(5)

        def test_cheap():
            model().invoke("hi")
    """)
    project.run("--budget-session-max=$0.013").assert_outcomes(passed=1, failed=1)


def test_a_refusal_by_the_ceiling_that_a_test_swallows_fails_it(project: Project) -> None:
    project.tests("""
        def test_it():
            try:
                run(5)
            except Exception:
                pass
    """)
    project.run("--budget-session-max=$0.001").assert_outcomes(failed=1)


def test_a_fake_without_a_price_passes_the_ceiling_and_is_told_of(project: Project) -> None:
    project.tests("def test_it():\n    run(1, name='of-our-own')\n")
    result = project.run("--budget-session-max=$1")
    result.assert_outcomes(passed=1)
    assert "unpriced: 1 model call in 1 test, not in the total" in project.said(result)


def test_a_live_model_without_a_price_is_refused_under_a_ceiling(project: Project) -> None:
    project.tests("""
        from langchain_openai import ChatOpenAI

        def test_it():
            ChatOpenAI(model="of-our-own", api_key="sk-x", max_retries=0).invoke("hi")
    """)
    result = project.run("--budget-session-max=$1")
    result.assert_outcomes(failed=1)
    assert "--budget-session-max: model of-our-own was refused: unpriced" in project.said(result)


@pytest.mark.parametrize("amount", ["0", "-1", "five", "nan"])
def test_a_ceiling_that_means_nothing_is_refused_by_name(project: Project, amount: str) -> None:
    result = project.run(f"--budget-session-max={amount}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--budget-session-max" in project.said(result)


def test_the_summary_names_the_dearest_tests(project: Project, workers: int) -> None:
    project.ini("budget_session_max = $5")
    project.tests("""
        from langchain_core.caches import InMemoryCache

        def test_small():
            run(1)

        def test_large():
            run(3)

        def test_cached():
            chat = model()
            chat.cache = InMemoryCache()
            chat.invoke("go")
            chat.invoke("go")

        def test_none():
            pass
    """)
    result = project.run("--budget-summary=2", workers=workers)
    text = project.said(result)
    assert "$0.0175 in 3 tests: 6 model calls, 4 tool calls; 0% of --budget-session-max $5.00" in text
    assert re.search(r"\$0.0105  test_it.py::test_large  \(3 model calls, 3 tool calls\)", text)
    assert text.index("test_large  (") < text.index("$0.0035  test_it.py::test_")
    assert text.count("  test_it.py::test_") == 2
    assert "avoided: $0.0035 by answers from a cache" in text
    assert " budget " not in project.said(project.run("--budget-summary=0", workers=workers))


def test_what_a_test_cost_reaches_the_controller_although_its_worker_dies_later(project: Project) -> None:
    project.tests("""
        import os

        def test_first():
            run(1)

        def test_then():
            run(1)
            os._exit(1)
    """)
    result = project.run("--budget-session-max=$1", "--max-worker-restart=0", workers=1)
    assert "$0.0035 in 1 test: 1 model call" in project.said(result)


def test_json_of_a_cost_is_what_was_sent() -> None:
    from agentbudget.pytest_plugin.costs import Numbers, TestCost

    cost = TestCost(nodeid="a::b", numbers=Numbers(cost=5, model_calls=1), live=True, new=Numbers(cost=5))
    assert TestCost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost
    assert cost.after(cost).numbers == Numbers(cost=10, model_calls=2)
