"""`import agentbudget` loads no framework and no price data: who only imports it pays nothing."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    *("langchain", "langchain_core", "langgraph", "genai_prices", "pydantic", "tiktoken", "structlog", "tenacity"),
    *("msgspec", "hypothesis", "pytest", "redis", "sqlite3", "asyncio"),
)


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_framework() -> None:
    loaded = loaded_after("import agentbudget")
    assert "agentbudget" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_the_measurement_sees_a_framework_when_there_is_one() -> None:
    assert "pydantic" in loaded_after("import pydantic")
