"""HTML and SVG as trees of elements, so that what a stranger named cannot become markup.

Text and attribute values are escaped by the serialiser of the standard library, never by hand; characters that are not
printable (controls, direction marks, lone surrogates) are shown as their escapes.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from agentbudget.trace.rendering import shown

Child = Element | str | None
Value = str | int | None

SVG = "http://www.w3.org/2000/svg"


def el(tag: str, *children: Child | Iterable[Child], **attributes: Value) -> Element:
    """An element. None leaves a child or an attribute out; `class_` means `class`, `aria_label` means `aria-label`."""
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), shown(value) if isinstance(value, str) else str(value))
    for child in children:
        if child is None or isinstance(child, str | Element):
            _append(element, child)
        else:
            for each in child:
                _append(element, each)
    return element


def raw(tag: str, content: str, **attributes: Value) -> Element:
    """A `style` or `script` element, whose content HTML does not unescape.

    Raises:
        ValueError: *content* could end the element.
    """
    if "</" in content or "<!--" in content:
        msg = f"the content of <{tag}> would end it or open a comment."
        raise ValueError(msg)
    element = el(tag, **attributes)
    element.text = content
    return element


def html(element: Element) -> str:
    """*element* as HTML."""
    return tostring(element, encoding="unicode", method="html")


def image(picture: Element, *, width: int, description: str) -> Element:
    """An `img` that carries the SVG *picture* itself. Nothing in it can run, and no page's styles reach it."""
    data = b64encode(tostring(picture, encoding="utf-8")).decode("ascii")
    return el("img", src=f"data:image/svg+xml;base64,{data}", width=width, alt=description)


def _append(element: Element, child: Element | str | None) -> None:
    if child is None:
        return
    if isinstance(child, Element):
        element.append(child)
    elif len(element):
        element[-1].tail = (element[-1].tail or "") + shown(child)
    else:
        element.text = (element.text or "") + shown(child)
