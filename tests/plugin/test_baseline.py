"""Baselines: `--budget-baseline`, `--budget-update`, `--budget-tolerance` and the band of live models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]

BASELINE = "--budget-baseline=costs.json"
LIVE = """
    {mark}
    def test_live(budget):
        run({steps})
"""


def one(project: Project, steps: int, *, mark: str = "", extra: str = "") -> None:
    project.tests(f"""
        {mark}
        def test_one():
            run({steps})

        def test_nothing():
            pass
        {extra}
    """)


def test_update_writes_a_sorted_file_that_the_next_run_agrees_with(project: Project, workers: int) -> None:
    one(project, 2, extra="\n        def test_another():\n            run(1)\n")
    result = project.run(BASELINE, "--budget-update", workers=workers)
    result.assert_outcomes(passed=3)
    assert "costs.json: 2 added, 0 changed, 0 removed, 0 kept" in project.said(result)
    text = (project.path / "costs.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "version": 1,
        "tests": {
            "test_it.py::test_another": {
                "cost": "0.003500000",
                "input_tokens": 1000,
                "model_calls": 1,
                "output_tokens": 100,
                "tool_calls": 1,
            },
            "test_it.py::test_one": {
                "cost": "0.007000000",
                "input_tokens": 2000,
                "model_calls": 2,
                "output_tokens": 200,
                "tool_calls": 2,
            },
        },
    }
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    project.run(BASELINE, workers=workers).assert_outcomes(passed=3)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_scripted_test_that_differs_fails_with_each_number(project: Project, workers: int, steps: int) -> None:
    one(project, 2)
    project.run(BASELINE, "--budget-update")
    one(project, steps)
    result = project.run(BASELINE, workers=workers)
    result.assert_outcomes(passed=1, failed=1)
    share = "-50.0%" if steps == 1 else "+50.0%"
    cost = "0.0035" if steps == 1 else "0.0105"
    for told in (
        "differs from",
        f"cost $0.0070 -> ${cost} ({share})",
        f"model_calls 2 -> {steps} ({share})",
        "--budget-update",
        "agentbudget report",
    ):
        assert told in project.said(result)


def test_a_difference_within_the_tolerance_passes(project: Project) -> None:
    one(project, 10)
    project.run(BASELINE, "--budget-update")
    one(project, 11)
    project.run(BASELINE, "--budget-tolerance=10").assert_outcomes(passed=2)
    project.run(BASELINE, "--budget-tolerance=9").assert_outcomes(passed=1, failed=1)
    before = (project.path / "costs.json").read_bytes()
    project.run(BASELINE, "--budget-tolerance=10", "--budget-update")
    assert (project.path / "costs.json").read_bytes() == before


def test_an_update_changes_only_what_differs(project: Project) -> None:
    one(project, 2, extra="\n        def test_other():\n            run(1)\n")
    project.write("test_gone.py", "from agents import run\ndef test_gone():\n    run(1)\n")
    project.run(BASELINE, "--budget-update")
    (project.path / "test_gone.py").unlink()
    one(project, 3, extra="\n        def test_other():\n            run(1)\n")
    before = (project.path / "costs.json").read_text().splitlines()
    result = project.run(BASELINE, "--budget-update", "-k", "test_one")
    assert "0 added, 1 changed, 1 removed, 1 kept" in project.said(result)
    after = (project.path / "costs.json").read_text().splitlines()
    assert len(set(after) - set(before)) == 5
    assert '    "test_it.py::test_other": {' in after
    assert not any("gone" in line for line in after)


def test_a_failed_test_does_not_change_its_entry(project: Project) -> None:
    one(project, 2)
    project.run(BASELINE, "--budget-update")
    before = (project.path / "costs.json").read_bytes()
    project.tests("def test_one():\n    run(1)\n    assert False\n")
    project.run(BASELINE, "--budget-update").assert_outcomes(failed=1)
    assert (project.path / "costs.json").read_bytes() == before


def test_a_test_without_an_entry_fails(project: Project) -> None:
    one(project, 1)
    project.run(BASELINE, "--budget-update")
    project.tests("def test_new():\n    run(1)\n")
    result = project.run(BASELINE)
    result.assert_outcomes(failed=1)
    assert "has no entry for this test. Add it with --budget-update" in project.said(result)


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ((), {"passed": 1, "warnings": 1}),
        (("--budget-live=fail",), {"failed": 1}),
        (("--budget-live=off",), {"passed": 1}),
        (("--budget-live-tolerance=100",), {"passed": 1}),
    ],
)
def test_a_live_test_above_its_band_warns_unless_told_otherwise(
    project: Project, options: tuple[str, ...], outcome: dict[str, int]
) -> None:
    mark = "@pytest.mark.budget(live=True)"
    project.tests(LIVE.format(steps=2, mark=mark))
    project.run(BASELINE, "--budget-update")
    project.tests(LIVE.format(steps=1, mark=mark))
    project.run(BASELINE).assert_outcomes(passed=1)
    project.tests(LIVE.format(steps=3, mark=mark))
    result = project.run(BASELINE, *options)
    result.assert_outcomes(**outcome)
    assert ("cost $0.0070 -> $0.0105 (+50.0%)" in project.said(result)) == (
        "--budget-live" not in str(options[:1]) or options == ("--budget-live=fail",)
    )


def test_live_options_hold_for_workers(project: Project) -> None:
    mark = "@pytest.mark.budget(live=True)"
    project.tests(LIVE.format(steps=2, mark=mark))
    project.run(BASELINE, "--budget-update")
    project.tests(LIVE.format(steps=3, mark=mark))
    project.run(BASELINE, "--budget-live=fail", workers=2).assert_outcomes(failed=1)
    project.run(BASELINE, "--budget-live=fail", "--budget-live-tolerance=60", workers=2).assert_outcomes(passed=1)
    project.run(BASELINE, "--budget-live=off", workers=2).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist. Make it with --budget-update"),
        ("{", "no JSON"),
        ("<<<<<<< HEAD\n{}", "A merge may have left both sides in it"),
        ("[]", "its version is missing"),
        ('{"version": 2, "tests": {}}', "version 2, but this version of agentbudget reads 1"),
        ('{"version": 1}', "'tests' is missing"),
        ('{"version": 1, "tests": {"a.py::b": {"cost": "1"}}}', "the entry of 'a.py::b' is damaged"),
        ('{"version": 1, "tests": {"a.py::b": 5}}', "the entry of 'a.py::b' is damaged"),
    ],
)
def test_a_baseline_that_cannot_be_read_ends_the_session_before_a_test(
    project: Project, content: str | None, message: str
) -> None:
    one(project, 1)
    if content is not None:
        (project.path / "costs.json").write_text(content, encoding="utf-8")
    result = project.run(BASELINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert message in project.said(result)
    assert "costs.json" in project.said(result)


def test_update_without_a_baseline_is_refused(project: Project) -> None:
    result = project.run("--budget-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nothing to update without --budget-baseline" in project.said(result)


def test_the_ini_file_names_the_baseline_from_the_root(project: Project) -> None:
    project.ini("""
        budget_baseline = costs/all.json
        budget_tolerance = 5
    """)
    one(project, 1)
    project.run("--budget-update").assert_outcomes(passed=2)
    assert Path(project.path / "costs/all.json").exists()
    project.run().assert_outcomes(passed=2)
