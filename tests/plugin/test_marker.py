"""The marker: what it governs, when it fails a test, and how it says so."""

from __future__ import annotations

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]


def test_the_call_that_would_break_the_budget_is_refused_and_the_test_fails_there(
    project: Project, workers: int
) -> None:
    project.tests("""
        @pytest.mark.budget(max_cost="$0.01")
        def test_dear():
            run(5)
            raise RuntimeError("never reached")

        @pytest.mark.budget(max_cost="$1", max_model_calls=5)
        def test_cheap():
            run(5)
    """)
    result = project.run(workers=workers)
    result.assert_outcomes(passed=1, failed=1)
    text = project.said(result)
    assert "never reached" not in [line.strip() for line in text.splitlines() if line.startswith("E ")]
    for told in (
        "BudgetExceeded",
        "max_cost is $0.01: $0.0070 spent, and step 5, model gpt-4o, may need",
        "too much. It was refused.",
        "step 1: model gpt-4o, $0.0035, 1,000 tokens in, 100 out",
        "agentbudget report .pytest_cache/d/agentbudget/test_it.py-test_dear.jsonl",
    ):
        assert told in text
    assert list((project.path / ".pytest_cache/d/agentbudget").glob("*test_dear.jsonl"))


def test_observe_lets_the_test_run_on_and_fails_it_with_every_violation(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(mode="observe", max_cost="$0.01", max_model_calls=2, max_tool_calls=10, tools={"search": 3})
        def test_dear():
            run(4)
            print("reached its end")
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    for told in (
        "reached its end",
        "max_cost is $0.01, but $0.0140 were taken: $0.0040 too much.",
        "passed with step 5: model gpt-4o, $0.0035",
        "max_model_calls is 2, but 4 were taken: 2 too much.",
        "tools['search'] is 3, but 4 were taken: 1 too much.",
        "passed with step 8: tool search",
    ):
        assert told in project.said(result)
    assert "max_tool_calls is" not in project.said(result)


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ('max_cost="$0.004"', "max_cost"),
        ("max_model_calls=1", "max_model_calls"),
        ("max_tool_calls=1", "max_tool_calls"),
        ("max_tool_calls=0", "max_tool_calls"),
        ('tools={"search": 1}', "tools['search']"),
        ("max_total_tokens=1900", "max_total_tokens"),
        ("max_output_tokens=150", "max_output_tokens"),
    ],
)
def test_every_limit_refuses_before_the_call(project: Project, limit: str, what: str) -> None:
    project.tests(f"""
        @pytest.mark.budget({limit})
        def test_it():
            run(2)
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "It was refused" in project.said(result)
    assert f"{what} is" in project.said(result)


def test_retries_are_limited(project: Project) -> None:
    project.tests("""
        from agentbudget.testing import ScriptedChatModel, scripted_reply

        @pytest.mark.budget(max_retries=1)
        def test_it():
            script = [ValueError("a"), ValueError("b"), ValueError("c"), scripted_reply("fine")]
            chat = ScriptedChatModel(script=script).with_retry(stop_after_attempt=4, wait_exponential_jitter=False)
            chat.invoke("go")
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "max_retries is 1: 1 spent" in project.said(result)


def test_a_stop_that_the_test_swallows_still_fails_it(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(max_model_calls=1)
        def test_it():
            try:
                run(2)
            except Exception:
                pass
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "budget: max_model_calls is 1: 1 spent" in project.said(result)


def test_fixtures_and_teardown_are_part_of_the_test(project: Project) -> None:
    project.tests("""
        @pytest.fixture
        def primed():
            run(1)
            yield
            run(1)

        @pytest.mark.budget(max_model_calls=1)
        def test_setup_and_call(primed):
            run(1)

        @pytest.mark.budget(max_model_calls=1)
        def test_teardown(primed):
            pass

        @pytest.mark.budget(max_model_calls=1, mode="observe")
        def test_observed_teardown(primed):
            pass

        @pytest.mark.budget(max_model_calls=2)
        def test_enough(primed):
            pass
    """)
    result = project.run("-k", "not test_setup")
    result.assert_outcomes(passed=3, errors=2)
    assert "ERROR at teardown of test_teardown" in project.said(result)
    assert "max_model_calls is 1, but 2 were taken" in project.said(result)
    project.run("-k", "test_setup").assert_outcomes(failed=1, errors=1)


def test_no_loops_fails_a_test_that_goes_round_in_circles(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(no_loops=True)
        def test_loops():
            run(4, same=True)

        @pytest.mark.budget(no_loops=True)
        def test_moves():
            run(4)
    """)
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "no_loops: tool search was called 4 times in a row with the same arguments" in project.said(result)


def test_no_loops_judges_by_the_loop_rules(project: Project) -> None:
    """Cycles are loops, and tools that are asked again and again on purpose are none."""
    project.tests("""
        @pytest.mark.budget(no_loops=True, loops=ab.Loops(polling={"search"}))
        def test_polls():
            run(4, same=True)

        @pytest.mark.budget(no_loops=True)
        def test_cycles():
            for query in "abababab":
                search.invoke({"query": query})
    """)
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "were repeated 3 times with the same arguments and the same results" in project.said(result)


def test_no_unpriced_fails_a_test_whose_cost_is_not_the_whole_cost(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(no_unpriced=True)
        def test_unpriced():
            run(1, name="of-our-own")

        @pytest.mark.budget(no_unpriced=True)
        def test_priced():
            run(1)
    """)
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "no_unpriced: 1 of 1 model calls had no price (of-our-own)" in project.said(result)


def test_the_nearest_marker_wins_option_by_option(project: Project) -> None:
    project.tests("""
        pytestmark = pytest.mark.budget(max_model_calls=1, max_tool_calls=1)

        @pytest.mark.budget(max_model_calls=2)
        class TestIt:
            def test_of_the_class(self):
                model().batch(["a", "b"])

            @pytest.mark.budget(max_model_calls=3)
            def test_of_its_own(self):
                model().batch(["a", "b", "c"])

            @pytest.mark.parametrize("n", [1, pytest.param(4, marks=pytest.mark.budget(max_model_calls=4)), 5])
            def test_parameters(self, n):
                model().batch(["a"] * n)

        def test_of_the_module():
            run(2)
    """)
    result = project.run("-rA")
    result.assert_outcomes(passed=4, failed=2)
    assert "FAILED test_it.py::TestIt::test_parameters[5]" in project.said(result)
    assert "FAILED test_it.py::test_of_the_module" in project.said(result)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("max_cst='$1'", "got an unknown option 'max_cst'. Did you mean 'max_cost'?"),
        ("max_cost=-1", "max_cost=-1: money must be finite and not negative"),
        ("max_model_calls=0", "max_model_calls=0"),
        ("'$1'", "takes keywords only"),
        ("mode='strict'", "mode='strict': one of 'enforce', 'observe'"),
        ("no_loops='yes'", "no_loops='yes': True or False"),
    ],
)
def test_a_marker_that_means_nothing_is_an_error_of_its_test_by_name(
    project: Project, marker: str, message: str
) -> None:
    project.tests(f"""
        @pytest.mark.budget({marker})
        def test_wrong():
            raise RuntimeError("never run")

        def test_other():
            pass
    """)
    result = project.run()
    result.assert_outcomes(passed=1, errors=1)
    assert f"test_it.py::test_wrong: {message}" in project.said(result) or message in project.said(result)
    assert "never run\n" not in "".join(
        line for line in project.said(result).splitlines(keepends=True) if line[:2] == "E "
    )


def test_a_budget_that_governs_nothing_is_warned_about_by_name(project: Project, workers: int) -> None:
    project.tests("""
        @pytest.mark.budget(max_cost="$1")
        def test_idle():
            pass

        @pytest.mark.budget(max_cost="$1")
        @pytest.mark.skip
        def test_skipped():
            pass
    """)
    result = project.run(workers=workers)
    result.assert_outcomes(passed=1, skipped=1, warnings=1)
    assert "test_it.py::test_idle has a budget, but LangChain ran nothing in it." in project.said(result)
    project.run("-W", "error::UserWarning").assert_outcomes(failed=1, skipped=1)


def test_idle_budgets_are_named_up_to_a_point(project: Project) -> None:
    project.tests("""
        pytestmark = pytest.mark.budget(max_cost="$1")

        @pytest.mark.parametrize("n", range(25))
        def test_idle(n):
            pass
    """)
    result = project.run()
    result.assert_outcomes(passed=25, warnings=20)
    assert "Further tests like it are not named." in project.said(result)


def test_tests_without_a_budget_are_left_alone(project: Project) -> None:
    project.tests("""
        from langchain_core.callbacks.manager import CallbackManager

        @pytest.mark.budget(max_model_calls=1)
        def test_with():
            run(1)
            assert any(type(handler).__name__ == "Gate" for handler in CallbackManager.configure().handlers)

        def test_without():
            run(3)
            assert not CallbackManager.configure().handlers
    """)
    project.run().assert_outcomes(passed=2)


def test_a_budget_of_the_code_under_test_holds_too_and_its_stop_is_no_stop_of_the_test(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(max_model_calls=4)
        def test_it(budget):
            with pytest.raises(ab.BudgetExceeded), ab.task("inner", max_model_calls=2):
                run(3)
            callback = ab.BudgetCallback(max_model_calls=1, per="callback", governor=ab.Governor())
            with pytest.raises(ab.BudgetExceeded):
                model().batch(["a", "b"], config={"callbacks": [callback]})
            assert callback.report is None or callback.report.model_calls <= 1
            assert budget.report.model_calls <= 4
            assert budget.report.stopped_by is None
    """)
    project.run().assert_outcomes(passed=1)
