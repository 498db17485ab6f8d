"""Context that grows: what tool results cost by staying in it."""

from __future__ import annotations

from agentbudget.domain.money import NANOS_PER_DOLLAR
from agentbudget.finops.advisor.asked import Asked
from agentbudget.finops.advisor.values import Lever, Saving
from agentbudget.finops.bloat import Carried, carried

_TOP = 5


def context_growth(asked: Asked) -> None:
    """The tools whose results cost most after they were read once."""
    found = carried(asked.record.history)
    if any(tool.carried_tokens and not tool.cost for tool in found):
        asked.note("context growth: results stay in contexts, but no call has recorded prices, so they have no cost")
    asked.levers.extend(_lever(asked, tool) for tool in found[:_TOP] if tool.cost > 0)


def _lever(asked: Asked, tool: Carried) -> Lever:
    saving = Saving.up_to(min(asked.record.cost, int(tool.cost * NANOS_PER_DOLLAR)))
    mean = tool.bytes // tool.calls if tool.calls else 0
    return Lever(
        kind="context",
        title=f"results of {tool.tool} that stay in the context",
        saving=saving,
        month=asked.record.month(saving),
        confidence="upper bound",
        reason="it takes that no result is needed again once it was read; what is needed must be asked for again",
        computed=f"{tool.calls:,} results of {mean:,} bytes on average, sent again as {tool.carried_tokens:,} tokens "
        "at the average input price, cache reads included; bytes are tokens at the rate that contexts grew",
        change="ab.BudgetMiddleware(compact=True, ...), LangChain's ContextEditingMiddleware, or a shorter result: "
        "fewer fields, fewer rows, a summary",
        verify="agentbudget diff OLD NEW with traces from before and after",
        risk="the agent may miss what was cut and call the tool again; a context that is edited is read from no prompt "
        "cache",
    )
