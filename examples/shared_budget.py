"""One team budget over several processes: whoever comes first, together they never pass it.

Each process runs agents that call a model (a stand-in here: no key, no network) until the team's budget refuses the
next call. The same works on Redis by changing the URL, then over several machines.

    python examples/shared_budget.py
    python examples/shared_budget.py --ledger redis://localhost:6379/0
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

import agentbudget as ab

BUDGET = "$0.05"
AGENTS = 4
ANSWER = AIMessage(
    content="Done.",
    usage_metadata={"input_tokens": 900, "output_tokens": 80, "total_tokens": 980},
    response_metadata={"model_name": "gpt-4o-mini"},
)


def governor(ledger: str, team_limit: str) -> ab.Governor:
    """What every process builds alike: the same ledger, the same limit."""
    limit = ab.Limit(meter="cost", amount=team_limit, scope="team")
    return ab.Governor(ledger=ledger, limits=[limit])


def work(ledger: str, team: str) -> None:
    """One process: some agents at once, each calling until it is stopped. Prints the nano-dollars it spent."""
    logging.getLogger("langchain_core.callbacks.manager").setLevel(logging.CRITICAL)  # it logs each stop as an error
    gov = governor(ledger, BUDGET)

    def agent(number: int) -> int:
        model = GenericFakeChatModel(messages=iter(lambda: ANSWER, None), name="gpt-4o-mini")
        with (
            ab.task(f"agent-{number}", max_model_calls=1_000, team=team, governor=gov) as task,
            suppress(ab.BudgetExceeded),
        ):
            while True:
                model.invoke("What is next? " * 200)
        return int(task.report.cost * 10**9)

    with ThreadPoolExecutor(AGENTS) as pool:
        print(sum(pool.map(agent, range(AGENTS))))
    gov.close()


def main() -> None:
    """Start the processes and compare what they spent with what the ledger says."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ledger", help="a ledger's URL; a SQLite file in a temporary folder by default")
    options.add_argument("--processes", type=int, default=3)
    options.add_argument("--work", metavar="TEAM", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.work:
        work(os.environ["LEDGER"], given.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        url = given.ledger or f"sqlite:///{Path(folder) / 'spend.db'}"
        try:
            ab.open_ledger(url).close()
        except ab.AgentBudgetError as error:  # before any process is started
            options.error(str(error))
        if url.startswith("memory:"):
            options.error("memory: lives in one process; name a file or a server that all of them share.")
        team = f"cx-{uuid4().hex[:8]}"
        command = [sys.executable, __file__, "--work", team]
        env = {**os.environ, "LEDGER": url}  # a command line can be read by everybody, and the URL may hold a password
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(given.processes)
        ]
        spent = [int(process.communicate()[0]) for process in started]
        ledger = ab.open_ledger(url)
        account = ab.Limit(meter="cost", amount=BUDGET, scope="team").account({"team": team}, at=0)
        assert account is not None, "the limit has a team"
        balance, proof = ledger.balance(account), ledger.verify()
        ledger.close()
    for number, nanos in enumerate(spent, start=1):
        print(f"process {number} spent ${nanos / 1e9:.6f}")
    print(f"together         ${sum(spent) / 1e9:.6f} of {BUDGET}; the ledger says ${balance.settled / 1e9:.6f}")
    print(f"Within the budget: {'yes' if sum(spent) <= (balance.limit or 0) else 'no'}.", end=" ")
    print(f"Equal to the ledger: {'yes' if sum(spent) == balance.settled else 'no'}.", end=" ")
    print(f"Proved by its journal: {'yes' if proof.ok else 'no'}.")


if __name__ == "__main__":
    main()
