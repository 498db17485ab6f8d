"""What a provider counted: only counts that can be right, unchangeable, the same however they were named."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.domain.usage import MAX_TOKENS, Usage

NAMES = [field.name for field in fields(Usage)]
COUNTS = st.fixed_dictionaries(
    {"input_tokens": st.integers(300, MAX_TOKENS), "output_tokens": st.integers(200, MAX_TOKENS)},
    optional={name: st.integers(0, 100) for name in NAMES if name not in {"input_tokens", "output_tokens"}},
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [-1, True, False, 1.0, 0.0, None, "3", float("nan"), MAX_TOKENS + 1])
def test_a_count_that_is_none_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}="):
        Usage(**{"input_tokens": 9, "output_tokens": 9, name: value})


def test_a_count_that_does_not_exist_is_refused_and_told() -> None:
    unknown: dict[str, int] = {"prompt_tokens": 3}
    with pytest.raises(TypeError, match="no \\['prompt_tokens'\\]: its counts are \\['input_tokens', "):
        Usage(**unknown)


@pytest.mark.parametrize(
    "counts",
    [
        {"input_tokens": 5, "cache_read_tokens": 3, "cache_write_1h_tokens": 3},
        {"cache_write_5m_tokens": 1},
        {"output_tokens": 5, "reasoning_tokens": 3, "output_audio_tokens": 3},
        {"reasoning_tokens": 1},
    ],
)
def test_parts_never_exceed_their_whole(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="which must include them"):
        Usage(**counts)


@given(COUNTS)
def test_it_is_the_same_in_whatever_order_it_is_counted_written_copied_or_sent(counts: dict[str, int]) -> None:
    usage = Usage(**counts)
    other = Usage(**dict(reversed(counts.items())))
    assert usage == other
    assert hash(usage) == hash(other)
    assert list(usage.to_dict().items()) == [(name, counts[name]) for name in NAMES if counts.get(name)]
    assert asdict(usage) == dict.fromkeys(NAMES, 0) | counts
    assert all(getattr(usage, name) == counts.get(name, 0) for name in NAMES)
    for same in (Usage(**usage.to_dict()), copy.deepcopy(usage), pickle.loads(pickle.dumps(usage)), replace(usage)):
        assert (same, repr(same)) == (usage, repr(usage))


def test_it_cannot_be_changed_and_one_made_from_it_is_checked() -> None:
    usage = Usage(input_tokens=5)
    with pytest.raises(FrozenInstanceError):
        usage.input_tokens = 6  # type: ignore[misc]  # it is frozen
    with pytest.raises(FrozenInstanceError):
        usage.more = 6  # type: ignore[attr-defined]  # there is no such count
    with pytest.raises(ValueError, match="cached tokens"):
        replace(usage, cache_read_tokens=6)
    assert usage + Usage(input_tokens=1, output_tokens=2) == Usage(input_tokens=6, output_tokens=2)
