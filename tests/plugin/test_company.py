"""The plugin among others: event loops, threads, unittest, reruns, any order."""

from __future__ import annotations

import pytest

from tests.plugin.projects import Project

pytest_plugins = ["pytester"]

ASYNC = """
    import asyncio

    @pytest.fixture
    async def primed():
        await arun(1)
        yield
        await arun(1)

    {mark}
    @pytest.mark.budget(max_model_calls=3)
    async def test_enough(primed, budget):
        await asyncio.gather(arun(1), asyncio.create_task(asyncio.to_thread(run, 0)))
        assert budget.report.model_calls == 2

    {mark}
    @pytest.mark.budget(max_model_calls=2)
    async def test_too_much(primed):
        await asyncio.gather(arun(1), arun(1))

    {mark}
    @pytest.mark.budget(max_model_calls=4)
    async def test_threads():
        await asyncio.gather(*[asyncio.get_running_loop().run_in_executor(None, run, 1) for _ in range(5)])
"""


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_asyncio_tests_and_fixtures_are_governed_whatever_the_scope_of_their_loop(project: Project, scope: str) -> None:
    project.ini(f"""
        asyncio_mode = auto
        asyncio_default_test_loop_scope = {scope}
    """)
    project.tests(ASYNC.format(mark=""))
    result = project.run()
    result.assert_outcomes(passed=1, failed=2, errors=1)
    assert project.said(result).count("budget: max_model_calls is 2: ") == 1
    assert project.said(result).count("budget: max_model_calls is 4: ") == 1


def test_anyio_tests_and_fixtures_are_governed(project: Project) -> None:
    backend = """
    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"
"""
    project.tests(backend + ASYNC.format(mark="@pytest.mark.anyio"))
    result = project.run()
    result.assert_outcomes(passed=1, failed=2, errors=1)
    assert project.said(result).count("budget: max_model_calls is 2: ") == 1


def test_plain_threads_of_a_test_belong_to_it(project: Project) -> None:
    project.tests("""
        import threading

        @pytest.mark.budget(max_model_calls=2)
        def test_it(budget):
            threads = [threading.Thread(target=run, args=(1,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert budget.report.model_calls == 2
            with pytest.raises(ab.BudgetExceeded):
                run(1)
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    assert "max_model_calls is 2: 2 spent" in project.said(result)


def test_unittest_classes_are_governed(project: Project) -> None:
    project.tests("""
        import unittest

        @pytest.mark.budget(max_model_calls=2)
        class TestIt(unittest.TestCase):
            def setUp(self):
                run(1)

            def test_enough(self):
                run(1)

            def test_too_much(self):
                run(2)

            def test_swallowed(self):
                with self.assertRaises(ab.BudgetExceeded):
                    run(2)

            def test_own_failure(self):
                self.assertEqual(1, 2)

        @pytest.mark.budget(max_model_calls=1)
        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_too_much(self):
                await arun(2)
    """)
    result = project.run("-rA")
    result.assert_outcomes(passed=1, failed=4)
    text = project.said(result)
    assert text.count("budget: max_model_calls is 2: 2 spent") >= 2
    assert "max_model_calls is 1: 1 spent" in text
    assert "AssertionError: 1 != 2" in text


def test_each_rerun_has_the_whole_budget_and_all_are_summed_up(project: Project, workers: int) -> None:
    pytest.importorskip("pytest_rerunfailures")
    project.tests("""
        from pathlib import Path

        @pytest.mark.budget(max_model_calls=1)
        def test_it():
            run(1)
            tries = Path("tries")
            tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
            assert len(tries.read_text()) == 3
    """)
    result = project.run("--reruns", "3", workers=workers)
    assert result.parseoutcomes()["passed"] == 1
    assert "$0.0105 in 1 test: 3 model calls, 3 tool calls" in project.said(result)


def test_no_test_sees_what_an_earlier_one_spent(project: Project) -> None:
    project.tests("""
        @pytest.mark.parametrize("n", range(4))
        @pytest.mark.budget(max_model_calls=1, max_cost="$0.01")
        def test_it(n):
            run(1)
    """)
    project.write("conftest.py", "def pytest_collection_modifyitems(items):\n    items.reverse()\n")
    result = project.run()
    result.assert_outcomes(passed=4)
    assert "4 tests: 4 model calls" in project.said(result)


def test_work_left_behind_belongs_to_the_test_that_began_it(project: Project) -> None:
    project.tests("""
        import threading
        from langchain_core.runnables import RunnableLambda

        begun, go, left = threading.Event(), threading.Event(), []

        def work(_):
            begun.set()
            assert go.wait(20)
            model().invoke("late")

        def test_first(budget):
            thread = threading.Thread(target=lambda: RunnableLambda(work).invoke(0))
            left.append(thread)
            thread.start()
            assert begun.wait(20)

        def test_second(budget):
            go.set()
            left[0].join()
            assert budget.report.model_calls == 0
    """)
    project.run().assert_outcomes(passed=2)


def test_doctests_and_a_fixture_asked_for_late_are_no_trouble(project: Project) -> None:
    project.tests('''
        def doubled(n):
            """
            >>> doubled(2)
            4
            """
            return 2 * n

        def test_late(request):
            request.getfixturevalue("budget").report
            run(1)
            assert request.getfixturevalue("budget").report.model_calls == 1
    ''')
    project.run("--doctest-modules").assert_outcomes(passed=2)


def test_langchain_loaded_in_the_middle_of_a_test_is_governed(project: Project) -> None:
    """In a fresh interpreter: neither the test module nor the plugin loads LangChain before the test does."""
    (project.path / "test_it.py").write_text(
        "import sys\n"
        "import pytest\n\n"
        "@pytest.mark.budget(max_model_calls=1)\n"
        "def test_it():\n"
        "    assert 'langchain_core' not in sys.modules and 'msgspec' not in sys.modules\n"
        "    from agents import run\n"
        "    run(2)\n",
        encoding="utf-8",
    )
    options = ("-p", "no:asyncio", "-p", "no:anyio", "-p", "no:langsmith_plugin", "-p", "no:hypothesispytest")
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)
    result.assert_outcomes(failed=1)
    assert "max_model_calls is 1: 1 spent" in project.said(result)
