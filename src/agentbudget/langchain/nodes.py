"""Budgets of single nodes of a graph: each node with one is a task within the task of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

from agentbudget.domain.budget import Budget
from agentbudget.errors import ConfigurationError
from agentbudget.governor.reports import Reports
from agentbudget.governor.task import Task
from agentbudget.langchain.callback import BudgetCallback
from agentbudget.langchain.runs import RUNS, Run


class NodeBudgets(BudgetCallback):
    """A `BudgetCallback` of a graph, some of whose nodes have a budget of their own.

    All executions of a node within one task of the graph, in loops and in parallel, share the budget of the node; what
    they spend counts in the graph's, too.
    """

    def __init__(self, nodes: Mapping[str, Budget], budget: Budget | None = None, **options: Any) -> None:
        super().__init__(budget, **options)
        self.nodes = dict(nodes)
        self.node_reports = Reports()
        """Reports of the last closed tasks of nodes, oldest first."""

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A chain, graph, node or retriever begins."""
        super().on_chain_start(
            serialized,
            inputs,
            run_id=run_id,
            parent_run_id=parent_run_id,
            tags=tags,
            metadata=metadata,
            **kwargs,
        )
        name = (metadata or {}).get("langgraph_node")
        run = RUNS.get(run_id)
        if name in self.nodes and run is not None and run.node and run.parent is not None:
            graph = next((task for task, reports in run.parent.opened if reports is self.reports), None)
            if graph is not None:
                self._open_node(run, graph, str(name))

    def _open_node(self, run: Run, graph: Task, name: str) -> None:
        governor, task_id = self.governor, f"{graph.id}-{name}"
        with governor.lock:  # of branches that begin at once, one opens the task and the others join
            task = governor.find_task(task_id)
            if task is None:
                task = governor.open_task(name, self.nodes[name], task_id=task_id, parent=graph, thread=graph.thread)
            elif not task.roots:
                governor.resume(task, self.nodes[name], lift=False)
            governor.enter(task)
        run.add(task)
        run.opened += ((task, self.node_reports),)

    def __reduce__(self) -> NoReturn:
        msg = "a graph guarded with nodes= cannot be pickled: guard it anew where it is loaded."
        raise TypeError(msg)


def checked_nodes(graph: Any, nodes: Mapping[str, Budget]) -> Mapping[str, Budget]:
    """*nodes* if each is a node of *graph* with a budget.

    Raises:
        ConfigurationError: it has no nodes, or none with this name. TypeError: a value is no `Budget`.
    """
    known = getattr(graph, "nodes", None)
    if not isinstance(known, Mapping):
        msg = f"nodes=: {type(graph).__name__} has no nodes; guard the compiled graph itself."
        raise ConfigurationError(msg)
    for name, budget in nodes.items():
        if name not in known or name == "__start__":
            names = ", ".join(repr(each) for each in known if each != "__start__")
            msg = f"nodes={name!r}: the graph has no such node; it has {names}."
            raise ConfigurationError(msg)
        if not isinstance(budget, Budget):
            msg = f"nodes[{name!r}]: {budget!r} is not a Budget, e.g. Budget(max_cost='$0.20')."
            raise TypeError(msg)
    return nodes
