"""Calls as a tree: which ran inside which, and which ran beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Node(Protocol):
    """What is arranged: an interval of time that may name the one around it."""

    call: str
    inside: str
    begin: float
    end: float
    number: int
    depth: int
    parallel: bool


N = TypeVar("N", bound=Node)


def arranged(nodes: Sequence[N]) -> list[N]:
    """*nodes* with each one's children behind it, in order of their beginnings; numbered, with depth, marked where
    they overlapped a sibling. One whose parent is not among them, or which is its own ancestor, is a root."""
    children = _children(nodes)
    order: list[N] = []
    open_: list[tuple[N, int]] = [(root, 0) for root in reversed(children.pop("", []))]
    while open_:
        node, depth = open_.pop()
        order.append(node)
        node.depth, node.number = depth, len(order)
        open_ += [(child, depth + 1) for child in reversed(children.pop(node.call, []))]
    return order


def _children(nodes: Sequence[N]) -> dict[str, list[N]]:
    """By the call around them, roots under the empty name."""
    known = {node.call: node for node in nodes}
    children: dict[str, list[N]] = {}
    for node in sorted(nodes, key=lambda each: each.begin):
        inside = node.inside if known.get(node.call) is node and _leads_out(node, known) else ""
        children.setdefault(inside, []).append(node)
    for siblings in children.values():
        _mark_parallel(siblings)
    return children


def _leads_out(node: N, known: dict[str, N]) -> bool:
    """Whether the way up from *node* has a parent and ends at a root."""
    if node.inside not in known:
        return False
    seen = {node.call}
    while node.inside in known:
        node = known[node.inside]
        if node.call in seen:
            return False
        seen.add(node.call)
    return True


def _mark_parallel(siblings: Sequence[N]) -> None:
    """Two that only touch follow each other; a moment without length overlaps nothing."""
    last: N | None = None
    for node in siblings:
        if node.end <= node.begin:
            continue
        if last is not None and node.begin < last.end:
            node.parallel = last.parallel = True
        if last is None or node.end > last.end:
            last = node
