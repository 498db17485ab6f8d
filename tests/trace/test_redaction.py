"""Hashes tell repeats, reveal nothing, and cannot be made to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import UserDict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agentbudget.errors import ConfigurationError
from agentbudget.trace.events import CallReserved, CallSettled, TraceOpened
from agentbudget.trace.redaction import MAX_DEPTH, MAX_NODES, MAX_TEXT, Hasher, jsonable
from agentbudget.trace.writer import TraceWriter

HASHER = Hasher(b"a key of sixteen bytes")
CANARY = "canary-7f3a9c-secret"

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


class Answer(BaseModel):
    text: str
    key: SecretStr = SecretStr(CANARY)


@dataclass
class Record:
    text: str
    _hidden: str = CANARY


class Colour(Enum):
    RED = 1


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Iterator[int]:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError


class HostileStr(str):
    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError


def cyclic() -> list[Any]:
    cycle: list[Any] = [1]
    cycle += [cycle, {"again": cycle}]
    return cycle


# -- hashes -------------------------------------------------------------------------------------------------------


@given(value=VALUES)
def test_a_hash_is_16_hexadecimal_characters_and_the_same_for_a_copy(value: Any) -> None:
    found = HASHER.hash(value)
    assert len(bytes.fromhex(found)) == 8
    assert HASHER.hash(value if isinstance(value, bytes) else msgspec.convert(value, Any)) == found


def test_order_of_keys_and_kind_of_sequence_do_not_matter() -> None:
    assert HASHER.hash({"a": 1, "b": [1, 2]}) == HASHER.hash({"b": (1, 2), "a": 1})
    one, other = {0, 8}, {8, 0}  # they collide in a table of 8, so each set lists first what came first
    assert list(one) != list(other)
    assert HASHER.hash(one) == HASHER.hash(other)
    assert HASHER.hash(UserDict(a=1)) == HASHER.hash({"a": 1})


@given(st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=5), SCALARS, max_size=5))
@example({"n": 2**63, "m": -(2**63)})
@example({"long": "x" * 5_000})
@example({"\ud800": 1, "b": "\ud800"})
def test_what_is_hashed_the_short_way_has_the_hash_of_the_long_way(value: dict[str, Any]) -> None:
    assert HASHER.hash(value) == HASHER.hash(UserDict(value))


def test_different_values_have_different_hashes() -> None:
    values = [
        "", "1", 1, 1.0, True, None, "null", [], {}, [[]], ["a", "b"], ["ab"], {"a": "b"}, {"b": "a"}, "\ud800", "?",
        0.1, 10**400, -(10**400), float("nan"), float("inf"), [None], b"\x00", b"\x01",
    ]  # fmt: skip
    assert len({HASHER.hash(value) for value in values}) == len(values)


def test_hashes_of_different_keys_cannot_be_compared_and_the_key_id_says_so() -> None:
    other = Hasher(b"another key of many bytes")
    again = Hasher(b"a key of sixteen bytes")
    assert HASHER.hash("x") != other.hash("x")
    assert HASHER.key_id != other.key_id
    assert (again.hash("x"), again.key_id) == (HASHER.hash("x"), HASHER.key_id)
    assert Hasher().key_id != Hasher().key_id
    assert "sixteen" not in repr(HASHER) + str(HASHER)


@pytest.mark.parametrize("key", [b"", b"short", "a text of sixteen characters", 7])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        Hasher(key)


def test_a_key_file_is_made_once_for_its_owner_and_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    code = "import sys; from agentbudget.trace.redaction import Hasher; print(Hasher.from_file(sys.argv[1]).hash('x'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    printed = {process.communicate()[0].strip() for process in running}
    assert printed == {Hasher.from_file(path).hash("x")}
    assert list(path.parent.iterdir()) == [path]
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_key_file_is_made_and_kept(tmp_path: Path) -> None:
    made = Hasher.from_file(tmp_path / "key")
    assert Hasher.from_file(tmp_path / "key").key_id == made.key_id
    assert Hasher.from_file(tmp_path / "other").key_id != made.key_id
    with pytest.raises(ConfigurationError, match="made there"):
        Hasher.from_file(tmp_path / "key" / "below")


@pytest.mark.parametrize("content", [b"", b"not hexadecimal", b"\xff\xfe", b"abcd"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigurationError, match="key"):
        Hasher.from_file(tmp_path / "key")


# -- anything at all ----------------------------------------------------------------------------------------------


def anything() -> list[Any]:
    return [
        cyclic(), Hostile(), [Hostile()], {"a": Hostile()}, {Hostile: 1}, HostileStr("x"), object(), len, Hostile,
        Colour.RED,
        {1: "a", "b": 2, (1, 2): 3, None: 4}, {1, "a", None}, Decimal("NaN"), memoryview(b"abc"), bytearray(b"abc"),
        (number for number in range(3)), [[[]]] * 10**6, "x" * 10**7, b"x" * 10**7, dict.fromkeys(range(10**6)),
        10**10_000,
    ]  # fmt: skip


@pytest.mark.parametrize("which", range(21))
def test_anything_can_be_hashed_and_written(which: int) -> None:
    value = anything()[which]
    assert len(HASHER.hash(value)) == 16
    assert len(msgspec.json.encode(jsonable(value))) < 4 * MAX_TEXT


def test_work_is_bounded_and_what_is_cut_is_marked_with_its_size() -> None:
    assert jsonable(list(range(3 * MAX_NODES)))[-1] == f"… ({2 * MAX_NODES + 1} more)"
    cut = jsonable(dict.fromkeys(map(str, range(3 * MAX_NODES)), 0))
    assert cut["…"] == 3 * MAX_NODES - (len(cut) - 1)
    text = jsonable("a" * MAX_TEXT + "b" * MAX_TEXT)
    assert (text[:3], text[-3:]) == ("aaa", "bbb")
    assert f"… ({MAX_TEXT} more)" in text
    assert HASHER.hash("x" * MAX_TEXT * 2) != HASHER.hash("x" * (MAX_TEXT * 2 + 1))
    deep: Any = "end"
    for _ in range(2 * MAX_DEPTH):
        deep = [deep]
    assert "end" not in str(jsonable(deep))


@given(value=JSON)
def test_json_values_are_written_as_they_are(value: Any) -> None:
    assert jsonable(value) == value


def test_objects_become_their_public_attributes() -> None:
    assert jsonable(
        [Record("a"), Answer(text="b"), Colour.RED, Decimal("1.50"), TraceOpened(at=1.0, schema=1, version="0")]
    )[:4] == [{"text": "a"}, {"text": "b", "key": "**********"}, 1, "1.50"]


# -- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_reaches_the_trace_by_default_and_hidden_ones_not_even_with_full_content(tmp_path: Path) -> None:
    payload = {"prompt": CANARY, "nested": [Record(CANARY), Answer(text=CANARY)]}
    hidden = [Record("x"), Answer(text="y")]
    writer = TraceWriter(
        tmp_path / "run.jsonl", header=TraceOpened(at=0.0, schema=1, version="0", key_id=HASHER.key_id)
    )
    writer.write(
        "",
        [
            CallReserved(at=1.0, call="c", tasks=("t",), kind="tool", name="search", request=HASHER.hash(payload)),
            CallSettled(at=1.0, call="c", tasks=("t",), kind="tool", name="x", outcome="ok", content=jsonable(hidden)),
        ],
    )
    text = (tmp_path / "run.jsonl").read_text()
    assert CANARY not in text
    assert HASHER.hash(payload) in text
    assert CANARY in str(jsonable(payload))
