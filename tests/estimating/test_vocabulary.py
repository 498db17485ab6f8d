from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import tiktoken
import tiktoken.load
import tiktoken.registry
import tiktoken_ext.openai_public as public  # type: ignore[import-untyped]  # tiktoken's plugins have no types
from blockbuster import blockbuster_ctx

from agentbudget.estimating import Estimator, Vocabulary, measure, vocabulary
from agentbudget.estimating.vocabulary import WarmError, cached_file, warm

TINY = b"\n".join(base64.b64encode(bytes([n])) + b" " + str(n).encode() for n in range(256))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a network that is not there."""

    def offline(address: str) -> bytes:
        msg = f"no network: {address}"
        raise OSError(msg)

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tiktoken.load, "read_file", offline)
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    return tmp_path


@pytest.fixture
def at_hand(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole vocabulary in the cache: one token for each byte, known to tiktoken under the name of the real one."""
    tiny = tiktoken.Encoding(
        name="o200k_base",
        pat_str=r"(?s).",
        mergeable_ranks={bytes([n]): n for n in range(256)},
        special_tokens={"<|endoftext|>": 256},
    )
    source = replace(vocabulary._SOURCES["o200k_base"], sha256=hashlib.sha256(TINY).hexdigest())
    monkeypatch.setitem(vocabulary._SOURCES, "o200k_base", source)
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "o200k_base", tiny)
    path = cache / hashlib.sha1(source.url.encode(), usedforsecurity=False).hexdigest()
    path.write_bytes(TINY)
    return path


def test_the_addresses_and_hashes_are_those_of_tiktoken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str | None] = {}

    def load(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
        seen[url] = expected_hash
        return {}

    monkeypatch.setattr(public, "load_tiktoken_bpe", load)
    for encoding in vocabulary.ENCODINGS:
        public.ENCODING_CONSTRUCTORS[encoding]()
    assert seen == {source.url: source.sha256 for source in vocabulary._SOURCES.values()}


def test_the_file_is_where_tiktoken_itself_puts_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiktoken.load, "read_file", lambda address: TINY)
    tiktoken.load.read_file_cached(vocabulary._SOURCES["o200k_base"].url)
    assert cached_file("o200k_base") == next(cache.iterdir())


def test_offline_without_a_vocabulary_there_is_none_and_the_bound_is_made_without(cache: Path) -> None:
    found = Vocabulary()
    assert found.wait("o200k_base") is None
    assert found.wait("no such encoding") is None
    size = measure(["hello"])
    bound = Estimator(vocabulary=found).input_bound("gpt-5", size, texts=lambda: ["hello"])
    assert bound == Estimator().input_bound("gpt-5", size)


def test_a_damaged_file_is_left_alone_not_fetched_again(cache: Path) -> None:
    path = cache / hashlib.sha1(vocabulary._SOURCES["o200k_base"].url.encode(), usedforsecurity=False).hexdigest()
    path.write_bytes(TINY)  # whole, but not what the published hash says
    assert cached_file("o200k_base") == path
    assert Vocabulary().wait("o200k_base") is None
    assert path.read_bytes() == TINY


def test_a_cache_that_is_switched_off_means_no_vocabulary(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert cached_file("o200k_base") is None


def test_the_other_places_of_the_cache_are_looked_at(
    at_hand: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(at_hand.parent))
    assert cached_file("o200k_base") == at_hand
    monkeypatch.delenv("DATA_GYM_CACHE_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    default = tmp_path / "temp" / "data-gym-cache" / at_hand.name
    default.parent.mkdir(parents=True)
    default.write_bytes(TINY)
    assert cached_file("o200k_base") == default


def test_with_a_vocabulary_a_first_call_is_counted_special_tokens_and_all(at_hand: Path) -> None:
    found = Vocabulary()
    assert found.wait("o200k_base") is not None
    text = "<|endoftext|> " * 200
    size = measure([text, "hi"])
    bound = Estimator(vocabulary=found).input_bound("gpt-5", size, texts=lambda: [text, "hi"])
    assert size.appended_bytes < bound < 1.1 * size.appended_bytes + 100


def test_only_first_calls_of_moderate_size_and_of_models_with_that_vocabulary_are_counted(at_hand: Path) -> None:
    found = Vocabulary()
    found.wait("o200k_base")
    estimator = Estimator(vocabulary=found)

    def asked() -> list[str]:
        pytest.fail("the text was asked for")

    estimator.input_bound("gpt-5", measure(["later"], anchor_tokens=9), texts=asked)
    estimator.input_bound("gpt-5", measure(["x" * 100_000]), texts=asked)
    estimator.input_bound("claude-opus-4-5", measure(["first"]), texts=asked)


async def test_asking_on_an_event_loop_neither_waits_nor_reads_a_file(at_hand: Path) -> None:
    found = Vocabulary()
    with blockbuster_ctx():
        first = found.available("o200k_base")
    assert first is None or first("abc") == 3
    encoder = found.wait("o200k_base")
    assert encoder is not None
    assert found.available("o200k_base") is encoder


def test_warming_returns_where_the_files_are(at_hand: Path) -> None:
    assert warm(["o200k_base"]) == {"o200k_base": at_hand}


def test_warming_offline_says_what_failed(cache: Path) -> None:
    with pytest.raises(WarmError, match="o200k_base could not be fetched: no network"):
        warm()


def test_warming_without_a_place_to_keep_the_file_says_so(at_hand: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    with pytest.raises(WarmError, match="set TIKTOKEN_CACHE_DIR"):
        warm(["o200k_base"])


def test_importing_the_layer_does_not_load_tiktoken() -> None:
    import subprocess
    import sys

    code = "import sys, agentbudget.estimating; sys.exit('tiktoken' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
