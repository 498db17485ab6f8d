"""The other options, one by one, and what is wrong with their values."""

from __future__ import annotations

import stat

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]


def test_mode_is_the_default_of_markers_that_do_not_say(project: Project, workers: int) -> None:
    project.tests("""
        @pytest.mark.budget(max_model_calls=1)
        def test_silent():
            run(2)
            print("ran on")

        @pytest.mark.budget(max_model_calls=1, mode="enforce")
        def test_says():
            run(2)
            print("never said")
    """)
    result = project.run("--budget-mode=observe", workers=workers)
    result.assert_outcomes(failed=2)
    assert "ran on\n" in project.said(result)
    assert "\nnever said" not in project.said(result)
    assert "max_model_calls is 1, but 2 were taken" in project.said(result)


def test_trace_writes_one_file_a_test_and_the_last_run_counts(project: Project, workers: int) -> None:
    project.tests("""
        @pytest.mark.parametrize("what", ["plain", "a/b c"])
        def test_it(what):
            run(1)

        def test_nothing():
            pass
    """)
    for _ in range(2):
        project.run("--budget-trace=traces", workers=workers).assert_outcomes(passed=3)
    names = sorted(path.name for path in (project.path / "traces").iterdir())
    assert len(names) == 2
    assert all(name.startswith("test_it.py-test_it_") and name.endswith(".jsonl") for name in names)
    project.tests("""
        def test_them():
            trace = ab.Trace.load("traces")
            assert [report.model_calls for report in trace.reports] == [1, 1]
            assert "go go" not in open(trace.paths[0]).read()
    """)
    project.run().assert_outcomes(passed=1)


def test_trace_content_full_keeps_prompts_for_their_owner_alone(project: Project, workers: int) -> None:
    project.tests("def test_it():\n    run(1)\n")
    options = ("--budget-trace=traces", "--budget-trace-content=full")
    project.run(*options, workers=workers).assert_outcomes(passed=1)
    (path,) = (project.path / "traces").iterdir()
    assert "go go go" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_message_names_the_trace_that_was_written(project: Project) -> None:
    project.tests("@pytest.mark.budget(max_model_calls=1)\ndef test_it():\n    run(2)\n")
    result = project.run("--budget-trace=traces")
    assert "agentbudget report traces/test_it.py-test_it.jsonl" in project.said(result)


def test_prices_are_declared_in_a_file(project: Project, workers: int) -> None:
    project.write("prices.toml", '["of-our-own"]\ninput = "1"\noutput = "2"\n')
    project.tests("""
        from decimal import Decimal

        @pytest.mark.budget(max_cost="$1")
        def test_it(budget):
            run(1, name="of-our-own")
            assert budget.report.cost == Decimal("0.0012")
    """)
    project.run("--budget-prices=prices.toml", workers=workers).assert_outcomes(passed=1)
    result = project.run(workers=workers)
    result.assert_outcomes(failed=1)
    assert "of-our-own, was refused: unpriced" in project.said(result)


def test_on_unpriced_decides_about_models_without_a_price(project: Project, workers: int) -> None:
    project.tests("""
        @pytest.mark.budget(max_cost="$1")
        def test_it(budget):
            run(1, name="of-our-own")
            assert budget.report.unpriced_calls == 1
    """)
    project.run("--budget-on-unpriced=allow", workers=workers).assert_outcomes(passed=1)
    project.run("--budget-on-unpriced=refuse", workers=workers).assert_outcomes(failed=1)


def test_every_option_has_an_ini_key(project: Project) -> None:
    project.ini("""
        budget_mode = observe
        budget_trace = traces
        budget_summary = 1
        budget_on_unpriced = allow
    """)
    project.tests("""
        @pytest.mark.budget(max_model_calls=1, max_cost="$1")
        def test_it():
            run(2, name="of-our-own")

        def test_other():
            run(1)
    """)
    result = project.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "(observed)" not in project.said(result)
    assert len(list((project.path / "traces").iterdir())) == 2


def test_pyproject_sets_defaults(project: Project) -> None:
    (project.path / "pytest.ini").unlink()
    project.write(
        "pyproject.toml",
        """
        [tool.pytest.ini_options]
        asyncio_default_fixture_loop_scope = "function"
        budget_session_max = "$0.004"
        """,
    )
    project.tests("def test_it():\n    run(2)\n")
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "--budget-session-max is $0.0040" in project.said(result)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--budget-mode=strict", "--budget-mode=strict: one of enforce, observe."),
        ("--budget-live=never", "--budget-live=never: one of warn, fail, off."),
        ("--budget-tolerance=-1", "--budget-tolerance=-1: a number of percent, e.g. 5."),
        ("--budget-live-tolerance=much", "--budget-live-tolerance=much: a number of percent, e.g. 5."),
        ("--budget-trace-content=some", "--budget-trace-content=some: one of hashes, full."),
        ("--budget-on-unpriced=maybe", "--budget-on-unpriced=maybe: one of refuse, estimate, allow."),
        ("--budget-prices=none.toml", "none.toml does not exist."),
        ("--budget-summary=few", "--budget-summary=few: a whole number."),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(project: Project, option: str, message: str) -> None:
    result = project.run(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in project.said(result)


def test_help_explains_every_option(project: Project) -> None:
    text = " ".join(project.said(project.run("--help")).split())
    for option in (
        *("session-max", "mode", "baseline", "tolerance", "live-tolerance", "live", "trace", "trace-content"),
        *("prices", "on-unpriced", "summary", "update"),
    ):
        assert f"--budget-{option}" in text
    assert "Ceiling for the whole session, shared by all xdist workers" in text
    assert "budget(max_cost=None" in " ".join(project.said(project.run("--markers")).split())
