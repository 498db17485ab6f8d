"""Policies for tenacity that know what a retry costs and whether it can help. They compose with tenacity's own.

    from tenacity import retry, stop_after_attempt
    from agentbudget.langchain.acting import current_tasks
    from agentbudget.retries import retry_if_can_succeed, stop_when_unaffordable, wait_retry_after

    @retry(
        retry=retry_if_can_succeed(),
        wait=wait_retry_after(),
        stop=stop_after_attempt(4) | stop_when_unaffordable(current_tasks),
        reraise=True,
    )
    def answer(question): ...

They wait for nothing themselves, so they serve sync and async functions alike.
"""

from agentbudget.retries.failures import can_succeed, retry_after
from agentbudget.retries.policies import Payer, retry_if_can_succeed, stop_when_unaffordable, wait_retry_after

__all__ = [
    "Payer",
    "can_succeed",
    "retry_after",
    "retry_if_can_succeed",
    "stop_when_unaffordable",
    "wait_retry_after",
]
