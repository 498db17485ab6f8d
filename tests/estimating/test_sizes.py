from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentbudget.estimating import RequestSize, measure
from agentbudget.estimating.density import SAMPLE, density
from agentbudget.estimating.sizes import SHORT

NONSENSE = [-1, 1.5, True, float("nan"), float("inf"), "3", 10**13]


@pytest.mark.parametrize("value", [*NONSENSE, None])
@pytest.mark.parametrize(
    "name",
    [
        "appended_bytes",
        "appended_messages",
        "tools",
        "images",
        "audio_bytes",
        "video_bytes",
        "document_bytes",
        "remote_files",
    ],
)
def test_a_size_that_is_no_count_is_refused(name: str, value: Any) -> None:
    given: dict[str, Any] = {"anchor_tokens": None, "appended_bytes": 10, "appended_messages": 1, name: value}
    with pytest.raises(ValueError, match="a size is an int from 0"):
        RequestSize(**given)


@pytest.mark.parametrize("value", NONSENSE)
def test_an_anchor_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="give None on a first call"):
        RequestSize(anchor_tokens=value, appended_bytes=10, appended_messages=1)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.3", None, True])
def test_a_density_outside_0_to_1_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        RequestSize(anchor_tokens=0, appended_bytes=10, appended_messages=1, density=value)


@given(st.lists(st.text(st.characters(exclude_categories=()))))
def test_bytes_are_exact_and_the_density_is_a_rate_for_any_text(texts: list[str]) -> None:
    for anchor in (None, 0):
        size = measure(texts, anchor_tokens=anchor)
        assert size.appended_bytes == sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        assert 0 <= size.density <= 1


@pytest.mark.parametrize("anchor", [None, 1000])
def test_a_short_text_is_not_looked_at_and_bounded_by_its_bytes(anchor: int | None) -> None:
    assert measure(["word "] * (SHORT // 5), anchor_tokens=anchor).density == 1.0 > density("word " * (SHORT // 5))
    assert measure(["word "] * SHORT, anchor_tokens=anchor).density < 1.0
    assert measure(["wörd "] * (SHORT // 5), anchor_tokens=anchor).density < 1.0, "bytes count, not characters"


@pytest.mark.parametrize("name", ["appended_bytes", "appended_messages", "tools", "images", "remote_files"])
def test_a_size_says_which_of_its_counts_is_nonsense(name: str) -> None:
    given: dict[str, Any] = {"anchor_tokens": None, "appended_bytes": 10**12, "appended_messages": 1, name: -1}
    with pytest.raises(ValueError, match=f"{name}=-1: "):
        RequestSize(**given)


def test_a_lone_surrogate_is_measured_not_a_crash() -> None:
    assert measure(["ok \ud83d"]).appended_bytes == 6


def test_what_was_attached_is_kept_and_is_media() -> None:
    size = measure(["see this"], images=2, audio_bytes=3, video_bytes=4, document_bytes=5, remote_files=6, tools=7)
    assert (size.images, size.audio_bytes, size.video_bytes, size.document_bytes) == (2, 3, 4, 5)
    assert (size.remote_files, size.tools) == (6, 7)
    assert size.has_media
    assert not measure(["see this"]).has_media
    assert not replace(size, images=0, audio_bytes=0, video_bytes=0, document_bytes=0, remote_files=0).has_media
    assert not RequestSize(anchor_tokens=None, appended_bytes=1, appended_messages=1, has_media=True).has_media
    assert RequestSize(anchor_tokens=None, appended_bytes=1, appended_messages=1, remote_files=1).has_media


def test_a_block_of_base64_inside_a_long_text_raises_its_density() -> None:
    prose = "The customer asked for a refund, and the carrier had no record of it. " * 300
    block = "Zm9vYmFyMTIzNDU2Nzg5MGFiY0RFRkdISUpLTE1OT1BRUlNUVVZXWFla" * 200
    assert len(prose + block) > SAMPLE
    assert measure([prose, block, prose]).density > measure([prose, prose]).density + 0.1


@pytest.mark.parametrize("anchor", [None, 1000])
def test_only_a_bounded_part_of_the_text_is_read(anchor: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import agentbudget.estimating.density as module

    read = 0
    bound = module._bound

    def counting(data: bytes) -> float:
        nonlocal read
        read += len(data)
        return bound(data)

    monkeypatch.setattr(module, "_bound", counting)
    measure(["0123456789abcdef" * 65_536], anchor_tokens=anchor)
    assert 0 < read <= SAMPLE
