"""What a chat model can do and how its client wants to be told: caps, tools, context window."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentbudget.estimating.sizes import RequestSize
from agentbudget.governor.values import Call
from agentbudget.langchain import ambient
from agentbudget.langchain.request import model_call

_OPENAI: Final = ("ChatOpenAI", "AzureChatOpenAI")
_CAP_OF_CLASS: Final = {
    **dict.fromkeys(_OPENAI, "max_completion_tokens"),
    "ChatGoogleGenerativeAI": "max_output_tokens",
    "ChatVertexAI": "max_output_tokens",
    "ChatOllama": "num_predict",
}
_CAPS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_USUAL_MOST: Final = 4096
"""Largest cap that every current model takes; what a model without a profile is given at most, unless it is known to
write more."""


_SCHEMAS: dict[int, tuple[weakref.ref[Any], object, dict[str, Any]]] = {}
"""Schemas of tools by identity. No tool is kept alive by it, nor the agents that a tool may hold."""
_SCHEMAS_MOST: Final = 256


def planned_call(model: BaseChatModel, messages: Sequence[BaseMessage], params: Mapping[str, Any]) -> Call:
    """The call that the handler will hear of, as far as it can be known before."""
    kwargs = {name: value for name, value in params.items() if name not in {"stop", "ls_structured_output_format"}}
    if kwargs.get("tools"):
        kwargs["tools"] = schemas_of(kwargs["tools"])
    stop = params.get("stop")
    announced = model._get_invocation_params(stop=stop, **kwargs)  # noqa: SLF001 - what LangChain itself announces
    planned = model_call(
        uuid4().hex,
        messages,
        serialized=model._serialized,  # noqa: SLF001 - the same
        parent="",
        tags=None,
        metadata=dict(model._get_ls_params(stop=stop, **kwargs)),  # noqa: SLF001 - the same
        params=announced,
    )
    return ambient.placed(planned)


def schemas_of(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """What a model is told of *tools*; of each tool it is made once, not once a call."""
    return [tool if isinstance(tool, dict) else _schema(tool) for tool in tools]


def _schema(tool: Any) -> dict[str, Any]:
    known, description = _SCHEMAS.get(id(tool)), getattr(tool, "description", None)
    if known is not None and known[0]() is tool and known[1] == description:
        return known[2]
    made = convert_to_openai_tool(tool)
    with contextlib.suppress(TypeError):  # what cannot be referred to weakly is not remembered
        if len(_SCHEMAS) >= _SCHEMAS_MOST:
            _SCHEMAS.clear()
        _SCHEMAS[id(tool)] = weakref.ref(tool), description, made
    return made


def name_of(model: BaseChatModel) -> str:
    """What the provider calls *model*."""
    return planned_call(model, [], {}).name


def cap_settings(model: BaseChatModel, params: Mapping[str, Any], cap: int) -> dict[str, Any]:
    """Keyword arguments that cap the output of *model* at *cap* tokens, whatever cap *params* had."""
    settings = {_cap_of(type(model)): cap}
    if not params.keys().isdisjoint(_CAPS):
        settings |= {given: cap for given in _CAPS if params.get(given) is not None}
    return settings


@lru_cache(maxsize=256)
def _cap_of(kind: type) -> str:
    """What models of this *kind* call their output cap."""
    names = [each.__name__ for each in kind.__mro__]
    return next((_CAP_OF_CLASS[each] for each in names if each in _CAP_OF_CLASS), "max_tokens")


def most_output(model: BaseChatModel, usual: int) -> int:
    """The largest cap that *model* takes; of a model without a profile, one that every model takes, or *usual*."""
    most = (model.profile or {}).get("max_output_tokens")
    return most if isinstance(most, int) and most > 0 else max(_USUAL_MOST, usual)


def thinking_tokens(params: Mapping[str, Any], model: BaseChatModel) -> int:
    """Tokens set aside for thinking: a cap must leave room for them and for an answer."""
    thinking = params.get("thinking") or getattr(model, "thinking", None)
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return budget if isinstance(budget, int) else 0


def can_replace(target: BaseChatModel, source: BaseChatModel, params: Mapping[str, Any], size: RequestSize) -> bool:
    """Whether *target* can do what a call of this *size* asks of *source*: tools, structured output, images.

    `response_format` is in the words of one provider, so it stays with models of the same class.
    """
    profile: Mapping[str, Any] = target.profile or {}
    if "model" in params or (params.get("tools") and not binds_tools(target)):
        return False
    if params.get("response_format") and (
        type(target) is not type(source) or profile.get("structured_output") is False
    ):
        return False
    return not size.images or profile.get("image_inputs") is not False


def takes(model: BaseChatModel, input_tokens: int) -> bool:
    """Whether so many tokens fit into the context window of *model*, as far as it is known."""
    window = (model.profile or {}).get("max_input_tokens")
    return not isinstance(window, int) or input_tokens <= window


def binds_tools(model: BaseChatModel) -> bool:
    """Whether tools can be bound to *model*."""
    return (
        type(model).bind_tools is not BaseChatModel.bind_tools
        and (model.profile or {}).get("tool_calling") is not False
    )
