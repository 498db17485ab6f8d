"""The fixture `budget`."""

from __future__ import annotations

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]


def test_the_fixture_tells_what_the_test_cost_so_far(project: Project, workers: int) -> None:
    project.tests("""
        from decimal import Decimal

        def test_it(budget):
            assert budget.report.cost == 0
            run(2)
            assert budget.report.cost == Decimal("0.007")
            assert budget.report.by_tool["search"].calls == 2
            assert budget.trace.report.cost == budget.report.cost
            assert budget.trace.report.model_calls == 2
            budget.assert_within(max_cost="$0.007", max_model_calls=2)
            budget.assert_within(ab.Budget(max_tool_calls=2))
            ab.assert_priced(budget.trace)
            ab.assert_no_loops(budget.trace)
    """)
    project.run(workers=workers).assert_outcomes(passed=1)


def test_assert_within_fails_with_the_step_that_passed_the_limit(project: Project) -> None:
    project.tests("""
        def test_it(budget):
            run(3)
            budget.assert_within(max_cost="$0.006")
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    for told in ("max_cost is $0.0060, but $0.0105 were taken: $0.0045 too much.", "passed with step 3: model gpt-4o"):
        assert told in project.said(result)


def test_a_task_within_the_test_stops_by_itself(project: Project) -> None:
    project.tests("""
        @pytest.mark.budget(max_model_calls=3)
        def test_the_agent_stops_at_its_budget(budget):
            with pytest.raises(ab.BudgetExceeded) as stopped, budget.task("agent", max_model_calls=2) as task:
                run(5)
            assert task.report.stopped_by.limit == "max_model_calls"
            assert task.report.model_calls == 2
            assert budget.report.model_calls == 2
            run(1)
    """)
    project.run().assert_outcomes(passed=1)


def test_an_unknown_limit_is_a_type_error_with_a_suggestion(project: Project) -> None:
    project.tests("""
        def test_it(budget):
            with pytest.raises(TypeError, match="Did you mean 'max_cost'"):
                budget.assert_within(max_cst=1)
            with pytest.raises(TypeError, match="no limit"):
                budget.assert_within()
    """)
    project.run().assert_outcomes(passed=1)
