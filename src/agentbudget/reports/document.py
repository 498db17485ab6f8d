"""One HTML file that needs nothing else: no network, no server, and scripts of nobody but its own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from agentbudget.reports.markup import Child, el, html, raw
from agentbudget.version import VERSION

STYLES = ("chart.css", "page.css")


def document(
    title: str, *body: Child, numbers: Mapping[str, Any], numbers_id: str, styles: tuple[str, ...] = STYLES
) -> str:
    """A whole page: *body*, a footer, and *numbers* as JSON in the element *numbers_id*.

    It loads nothing, and its policy lets the browser run no script and apply no style but its own two, by their hashes;
    without the script everything is there, only unsorted.
    """
    style = "".join(asset(name) for name in styles)
    content = el(
        "body",
        body,
        el("footer", el("p", f"Made by agentbudget {VERSION} from what was recorded. Amounts are in US dollars.")),
        raw("script", _json(numbers), type="application/json", id=numbers_id),
        raw("script", asset("page.js")),
    )
    return f"<!DOCTYPE html>\n{html(el('html', _head(title, style), content, lang='en'))}\n"


def _head(title: str, style: str) -> Element:
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(asset('page.js'))}; "
        "base-uri 'none'; form-action 'none'"
    )
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        raw("style", style),
    )


@cache
def asset(name: str) -> str:
    """A file that ships with this package."""
    return files("agentbudget.reports").joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


def _json(numbers: Mapping[str, Any]) -> str:
    """*numbers* as JSON in which no name can end the element that holds it."""
    return json.dumps(numbers).replace("<", "\\u003c")
