"""Signatures: equal for what is the same, cheap and stable for whatever an agent passes around."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentbudget.policies.signatures import _MASKS, MOST_VALUES, SIZE, Signer

SIGNER = Signer(b"k" * 16)


def call(**arguments: Any) -> bytes:
    return SIGNER.call("tool", arguments).call


def in_call(value: Any) -> bytes:
    return call(value=value)


def result(value: Any) -> bytes:
    return SIGNER.result(value).result


def test_the_order_of_arguments_and_white_space_do_not_matter() -> None:
    assert call(a=1, b="x  y\n") == call(b="x y", a=1)


@pytest.mark.parametrize(("one", "other"), [(1, 2), ("a", "b"), ([1, 2], [2, 1]), ({"a": 1}, {"b": 1}), (b"a", b"b")])
def test_other_arguments_and_other_results_have_other_signatures(one: Any, other: Any) -> None:
    assert call(value=one) != call(value=other)
    assert result(one) != result(other)


def test_another_tool_and_another_key_give_other_signatures() -> None:
    assert SIGNER.call("a", {}) != SIGNER.call("b", {})
    assert SIGNER.call("a", {}) != Signer(b"x" * 16).call("a", {})


@pytest.mark.parametrize("name", ["nonce", "request_id", "requestId", "timestamp", "Idempotency-Key", "trace_id"])
def test_fields_named_like_a_nonce_do_not_count(name: str) -> None:
    assert SIGNER.call("t", {"q": "x", name: "1"}) == SIGNER.call("t", {"q": "x", name: "2"})
    assert SIGNER.call("t", {"q": {"deep": {name: 1}}}) == SIGNER.call("t", {"q": {"deep": {name: 2}}})


def test_what_the_user_calls_volatile_does_not_count_and_nothing_else() -> None:
    one, other = {"q": "x", "page": 1, "seed": 1}, {"q": "x", "page": 1, "seed": 2}
    assert SIGNER.call("t", one, frozenset({"seed"})) == SIGNER.call("t", other, frozenset({"seed"}))
    assert SIGNER.call("t", one) != SIGNER.call("t", other)


def test_times_and_ids_in_a_result_are_masked_and_numbers_are_not() -> None:
    told = "2026-11-22T10:00:0{n}Z {id} took {n}.31 s at 0x7f{n}: 12:00:0{n} req_{n}: not ready"
    assert result(told.format(n=1, id=uuid4())) == result(told.format(n=2, id=uuid4()))
    assert result("10 % done") != result("20 % done")
    assert result({"at": "2026-01-01 10:00:00", "left": 5}) != result({"at": "2026-01-01 10:00:01", "left": 4})


@pytest.mark.parametrize(("hint", "sign", "pattern"), _MASKS)
@given(data=st.data())
def test_whatever_is_masked_bears_the_sign_that_is_looked_for_first(
    hint: str, sign: re.Pattern[str], pattern: re.Pattern[str], data: st.DataObject
) -> None:
    text = data.draw(st.from_regex(pattern))
    assert hint in text
    assert sign.search(text)


@example("  ")
@example(" ")
@given(st.text(st.sampled_from(" \t\n\x0b\x1c\x85\xa0\u2003\u2028ab.\u200b")))
def test_white_space_of_any_kind_is_one_space_and_the_rest_is_as_it_was(text: str) -> None:
    assert result(text) == result(" ".join(text.split()))
    assert result(f"a{text}b") == result(" ".join(f"a{text}b".split()))


def test_a_result_that_is_nothing_but_an_id_or_a_time_counts_as_it_is() -> None:
    assert result(str(uuid4())) != result(str(uuid4()))
    assert result("2026-11-22T10:00:01Z") != result("2026-11-22T10:00:02Z")


def test_the_ids_of_a_tool_message_do_not_count() -> None:
    class Message:
        def __init__(self, content: str, tool_call_id: str) -> None:
            self.content, self.tool_call_id = content, tool_call_id

    assert result(Message("same", "1")) == result(Message("same", "2")) != result(Message("other", "1"))


def test_what_a_call_names_is_its_paths_and_numbers_not_its_prose() -> None:
    def target(**arguments: Any) -> bytes:
        return SIGNER.call("t", arguments).target

    assert target(query="cheap flights to Rome", limit=5) == target(query="flights to Rome, cheap ones", limit=5)
    assert target(path="a/1.txt", text="some long text") != target(path="a/2.txt", text="some long text")


@pytest.mark.parametrize("text", ["", "[]", "None", "No results found.", "0 rows", "nothing new", "x" * 65])
def test_what_says_nothing_or_says_much_is_no_acknowledgement(text: str) -> None:
    assert not SIGNER.result(text).brief


def test_a_short_answer_is_an_acknowledgement_unless_it_failed() -> None:
    assert SIGNER.result("saved").brief
    assert not SIGNER.result("saved", failed=True).brief


class Hostile:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __str__(self) -> str:
        raise RuntimeError


class Endless(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __len__(self) -> int:
        return 10


def cycle() -> dict[str, Any]:
    ring: dict[str, Any] = {"name": "ring"}
    ring["self"] = [ring] * 50
    return ring


@pytest.mark.parametrize(
    "make",
    [
        Hostile,
        Endless,
        cycle,
        object,
        lambda: io.BytesIO(b"abc"),
        lambda: (n for n in range(3)),
        lambda: bytes(5_000_000),
        lambda: memoryview(b"abc"),
        lambda: "\ud800 lone",
        lambda: "long " * 2_000_000,
        lambda: 10**5_000,
        lambda: {"nan": float("nan")},
        lambda: {(1, 2): {3}, None: {"a", "b"}},
        lambda: ValueError("no"),
    ],
)
def test_signatures_of_bad_values_are_stable(make: Any) -> None:
    for sign in (in_call, result):
        assert len(sign(make())) == SIZE
        assert sign(make()) == sign(make())


def test_nothing_is_consumed_or_changed() -> None:
    stream, items = io.StringIO("abc"), iter([1, 2, 3])
    arguments = {"nested": {"b": [1, {"nonce": 2}], "a": {1, 2}}, "text": " x "}
    before = deepcopy(arguments)
    call(stream=stream, items=items, arguments=arguments)
    assert (stream.read(), list(items), arguments) == ("abc", [1, 2, 3], before)


def test_a_huge_value_is_looked_at_with_bounded_work() -> None:
    looked = 0

    class Counted(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal looked
            for item in super().__iter__():
                looked += 1
                yield item

    SIGNER.result(Counted([Counted([1] * 1_000)] * 1_000))
    assert looked <= 3 * MOST_VALUES


def test_long_texts_differ_by_their_ends_and_their_length() -> None:
    middle = "m" * 500_000
    assert result(f"a{middle}z") != result(f"b{middle}z") != result(f"b{middle}y")
    assert result(middle) != result(middle + "m")
