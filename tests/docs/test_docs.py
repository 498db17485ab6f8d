"""Every Python example in the documentation runs, in order, against a stand-in for the providers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import tool

import agentbudget as ab
from agentbudget.testing import ProviderServer

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PROJECT_OF_ITS_OWN = "docs/pytest.md"
"""Its examples are files, and run as such in tests/plugin/test_outside.py."""
PAGES = [str(page.relative_to(ROOT)) for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])]
RUN = [page for page in PAGES if page != _PROJECT_OF_ITS_OWN and _BLOCK.search((ROOT / page).read_text("utf-8"))]


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ProviderServer]:
    """Both providers' clients, made with their defaults, reach the stand-in; files go to a folder of the test."""
    with ProviderServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.base_url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
        monkeypatch.chdir(tmp_path)
        yield server


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"Nothing about {query}."


def blocks(page: str) -> list[str]:
    """The Python examples of a page."""
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", RUN)
def test_every_example_of_the_page_runs(page: str, providers: ProviderServer) -> None:
    names: dict[str, Any] = {"search": search}
    with ExitStack() as governors:
        for number, block in enumerate(blocks(page), 1):
            exec(compile(block, f"{page}, example {number}", "exec"), names)
            for made in {each for each in names.values() if isinstance(each, ab.Governor)}:
                governors.callback(made.close)
    assert providers.requests


@pytest.mark.parametrize("model", ["openai:gpt-5", "anthropic:claude-sonnet-4-6"])
def test_the_first_example_completes_with_clients_made_by_default(
    model: str, providers: ProviderServer, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(blocks("README.md")[0].replace("openai:gpt-5", model), {"search": search})
    assert "completed" in capsys.readouterr().out
    assert providers.requests


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_the_page_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_test_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name
    for file in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / file).exists(), file
