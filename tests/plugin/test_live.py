"""Which models are live: what a baseline may expect of their numbers."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.load import dumpd
from langchain_openai import ChatOpenAI

from agentbudget.pytest_plugin.gate import is_live
from agentbudget.testing import ScriptedChatModel


class OfTheProject(ScriptedChatModel):
    """A model class of the tested project itself."""


def openai(**options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o", api_key="sk-x", **options)  # type: ignore[arg-type]  # pydantic takes a str


@pytest.mark.parametrize(
    ("model", "live"),
    [
        (openai(), True),
        (openai(base_url="https://gateway.example.com/v1"), True),
        (openai(base_url="http://127.0.0.1:8080/v1"), False),
        (openai(base_url="http://localhost/v1"), False),
        (ScriptedChatModel(script=[]), False),
        (OfTheProject(script=[]), False),
        (GenericFakeChatModel(messages=iter([])), False),
    ],
)
def test_a_model_is_live_if_it_comes_from_a_package_and_asks_another_machine(
    model: BaseChatModel, *, live: bool
) -> None:
    assert is_live(dumpd(model)) is live


def test_a_model_of_another_installed_package_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("acme_models")
    package.__file__ = "/usr/lib/python3/site-packages/acme_models/__init__.py"
    monkeypatch.setitem(sys.modules, "acme_models", package)
    assert is_live({"id": ["acme_models", "chat", "ChatAcme"]})
    assert not is_live({"id": ["acme_other", "ChatAcme"]})
    assert not is_live(None)
