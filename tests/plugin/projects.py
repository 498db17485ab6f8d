"""A project of its own for every test of the plugin: run in this process, or by two workers of pytest-xdist."""

from __future__ import annotations

from textwrap import dedent

import pytest

AGENTS = '''
from langchain_core.tools import tool
from agentbudget.testing import ScriptedChatModel, scripted_reply

@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"

def model(name="gpt-4o"):
    """Each call takes 1,000 tokens in and 100 out: $0.0035 of gpt-4o."""
    reply = scripted_reply("fine", input_tokens=1000, output_tokens=100)
    return ScriptedChatModel(script=[reply], repeat_last=True, model_name=name, max_tokens=100)

def run(steps=1, name="gpt-4o", same=False):
    chat = model(name)
    for step in range(steps):
        chat.invoke("go " * 1500)
        search.invoke({"query": "same" if same else str(step)})

async def arun(steps=1):
    chat = model()
    for step in range(steps):
        await chat.ainvoke("go " * 1500)
        await search.ainvoke({"query": str(step)})
'''


class Project:
    """A folder with tests, and pytest run in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.ini()
        self.write("agents.py", AGENTS)
        pytester.syspathinsert()

    def ini(self, lines: str = "") -> None:
        """The settings of the project."""
        own = "asyncio_default_fixture_loop_scope = function\nfilterwarnings = default"
        self.write("pytest.ini", f"[pytest]\n{own}\n{dedent(lines)}")

    def write(self, name: str, code: str) -> None:
        """A file of the project."""
        (self.path / name).write_text(dedent(code), encoding="utf-8")

    def tests(self, code: str, name: str = "test_it.py") -> None:
        """A module of tests."""
        head = "import pytest\nimport agentbudget as ab\nfrom agents import arun, model, run, search\n"
        self.write(name, head + dedent(code))

    def run(self, *options: str, workers: int = 0) -> pytest.RunResult:
        """Run pytest; with *workers*, by that many."""
        distributed = ("-n", str(workers)) if workers else ("-p", "no:xdist")
        return self.pytester.runpytest_inprocess("-p", "no:randomly", *distributed, *options)

    @staticmethod
    def said(result: pytest.RunResult) -> str:
        """Everything a run printed."""
        return result.stdout.str() + result.stderr.str()
