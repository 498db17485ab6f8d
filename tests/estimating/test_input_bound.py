from __future__ import annotations

import gzip
import json
import random
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentbudget.estimating import Estimator, RequestSize, measure
from agentbudget.estimating.density import ORDINARY
from agentbudget.estimating.estimator import MAX_MODELS
from agentbudget.estimating.families import family_of

HERE = Path(__file__).parent
RECORDED = HERE.parents[2] / "shared" / "data" / "trajectories"
MEASURED: dict[str, Any] = json.loads((HERE / "measured.json").read_text("utf-8"))
COUNTED_BY = {"o200k": "gpt-5", "claude2": "claude-sonnet-4-5"}
PROSE = MEASURED["english"]["text"]


@cache
def recorded(name: str) -> list[list[dict[str, Any]]]:
    path = RECORDED / name
    if not path.is_file():
        pytest.skip("the recorded trajectories are not beside this checkout")
    runs: list[list[dict[str, Any]]] = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            runs.append([]) if row["type"] == "trajectory" else runs[-1].append(row)
    return runs


def anchored(anchor: int, size: int, density: float = ORDINARY) -> RequestSize:
    return RequestSize(anchor_tokens=anchor, appended_bytes=size, appended_messages=1, density=density)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz", 9_699), ("claude_code_freeideas.jsonl.gz", 313)],
)
def test_at_most_1_of_1000_recorded_steps_is_bounded_too_low(name: str, steps: int) -> None:
    estimator, excess = Estimator(), []
    for run in recorded(name):
        models = [at for at, row in enumerate(run) if row["kind"] == "model"]
        for before, at in pairwise(models):
            tools = run[before + 1 : at]
            size = RequestSize(
                anchor_tokens=run[before]["tokens_in"] + run[before]["tokens_out"],
                appended_bytes=sum(row["result_len"] for row in tools),
                appended_messages=len(tools),
                density=ORDINARY,
            )
            actual = run[at]["tokens_in"]
            excess.append(estimator.input_bound("m", size) / actual - 1)
            estimator.observe_input("m", size, actual)
    assert len(excess) == steps
    assert sum(e < 0 for e in excess) * 1000 <= steps
    assert sorted(excess)[steps // 2] < 0.06
    assert sorted(excess)[steps * 95 // 100] < 0.25


@pytest.mark.parametrize("kind", MEASURED)
def test_a_first_call_is_bounded_from_above_for_each_kind_of_text_and_tokenizer(kind: str) -> None:
    text = MEASURED[kind]["text"]
    for tokenizer, tokens in MEASURED[kind]["tokens"].items():
        bound = Estimator().input_bound(COUNTED_BY.get(tokenizer, "some-model"), measure([text]))
        assert bound >= tokens + 4, tokenizer


@pytest.mark.parametrize("kind", [k for k in MEASURED if k not in {"special_tokens", "english_short_words"}])
def test_the_rate_itself_holds_in_texts_too_long_for_constants_to_help(kind: str) -> None:
    text, copies = MEASURED[kind]["text"], 40
    for tokenizer, tokens in MEASURED[kind]["tokens"].items():
        if kind in {"spaces", "newlines"}:
            continue  # runs of white space join across copies
        bound = Estimator().input_bound(COUNTED_BY.get(tokenizer, "some-model"), measure([text] * copies))
        assert bound >= copies * tokens, tokenizer


def test_english_in_a_first_call_costs_at_most_twice_its_tokens_and_far_less_than_its_bytes() -> None:
    texts = [PROSE] * 10
    bound = Estimator().input_bound("gpt-5", measure(texts))
    assert bound < 2 * 10 * MEASURED["english"]["tokens"]["o200k"]
    assert bound < 0.4 * 10 * len(PROSE)


@pytest.mark.parametrize("kind", ["base64", "hex", "digits", "random_ascii", "csv_numbers", "uuids", "emoji", "thai"])
def test_appended_text_of_another_kind_than_was_learned_from_is_still_bounded(kind: str) -> None:
    estimator = Estimator()
    for tokenizer, tokens in MEASURED[kind]["tokens"].items():
        model = COUNTED_BY.get(tokenizer, tokenizer)
        for _ in range(200):  # English, at a low rate
            estimator.observe_input(model, anchored(10_000, 2_000), 10_000 + 360)
        copies = 30
        size = measure([MEASURED[kind]["text"]] * copies, anchor_tokens=500)
        assert estimator.input_bound(model, size) >= 500 + copies * tokens, tokenizer


def test_the_rate_of_appended_text_is_learned_and_followed() -> None:
    estimator, size = Estimator(), anchored(1_000, 10_000, density=0.1)
    start = estimator.input_bound("m", size)
    for _ in range(30):
        estimator.observe_input("m", size, 1_000 + 2_000)
    low = estimator.input_bound("m", size)
    for _ in range(200):
        estimator.observe_input("m", size, 1_000 + 6_000)
    assert low < start < estimator.input_bound("m", size)
    assert low >= 1_000 + 2 * 2_000


def test_reported_zeros_do_not_teach_that_text_is_free() -> None:
    estimator, size = Estimator(), anchored(0, 10_000, density=0.1)
    for _ in range(1000):
        estimator.observe_input("m", size, 0)
    assert estimator.input_bound("m", size) > 2_500


def test_a_first_call_above_its_bound_raises_the_next_bounds_of_that_model_only() -> None:
    estimator, size = Estimator(), measure([PROSE] * 5)
    actual = 2 * estimator.input_bound("claude-next", size)
    other = estimator.input_bound("gpt-5", size)
    estimator.observe_input("claude-next", size, actual)
    assert estimator.input_bound("claude-next", size) >= actual
    assert estimator.input_bound("gpt-5", size) == other


def test_first_calls_of_one_kind_tighten_that_kind_and_leave_the_others_safe() -> None:
    estimator, prose, schema = Estimator(), measure([PROSE] * 5), measure([MEASURED["json_records"]["text"]] * 5)
    before = estimator.input_bound("gpt-5", prose), estimator.input_bound("gpt-5", schema)
    actual = 5 * MEASURED["english"]["tokens"]["o200k"]
    for _ in range(4):
        estimator.observe_input("gpt-5", prose, actual)
    assert actual < estimator.input_bound("gpt-5", prose) < before[0]
    assert estimator.input_bound("gpt-5", schema) == before[1]


def test_three_first_calls_are_not_enough_to_trust() -> None:
    estimator, prose = Estimator(), measure([PROSE] * 5)
    before = estimator.input_bound("gpt-5", prose)
    for _ in range(3):
        estimator.observe_input("gpt-5", prose, 100)
    assert estimator.input_bound("gpt-5", prose) == before


def test_a_call_with_a_picture_teaches_nothing_about_text() -> None:
    estimator, plain, picture = Estimator(), measure([PROSE] * 5), measure([PROSE] * 5, images=1)
    before = estimator.input_bound("gpt-5", plain)
    for _ in range(10):
        estimator.observe_input("gpt-5", picture, 10**6)
    assert estimator.input_bound("gpt-5", plain) == before


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-4o", 1_445),
        ("openai/gpt-4o-mini-2024-07-18", 48_169),
        ("gpt-5", 1_190),
        ("gpt-5-nano", 3_779),
        ("azure/gpt-5.4", 12_000),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 1_568),
        ("claude-opus-4-20250514", 1_568),
        ("claude-opus-4-7", 4_784),
        ("models/gemini-3-pro-preview", 2_240),
        ("gemini-2.5-flash", 4_128),
        ("llama-3.2-90b-vision", 6_404),
    ],
)
def test_a_picture_is_bounded_by_what_its_provider_can_charge_for_one(model: str, most: int) -> None:
    estimator = Estimator()
    text = estimator.input_bound(model, measure(["look"]))
    assert estimator.input_bound(model, measure(["look"], images=3)) >= text + 3 * most


@pytest.mark.parametrize("part", ["audio_bytes", "video_bytes", "document_bytes"])
def test_attached_files_count(part: str) -> None:
    estimator, files = Estimator(), {part: 1_000_000}
    assert estimator.input_bound("m", measure(["x"], **files)) > estimator.input_bound("m", measure(["x"])) + 10_000


def test_a_file_known_only_by_its_id_is_not_free() -> None:
    estimator = Estimator()
    assert estimator.input_bound("m", measure(["x"], remote_files=1)) > 32_768


def test_tools_add_the_prompt_that_the_provider_adds() -> None:
    estimator, text = Estimator(), [PROSE]
    without = estimator.input_bound("claude-sonnet-4-5", measure(text))
    assert estimator.input_bound("claude-sonnet-4-5", measure(text, tools=1)) >= without + 530


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("ft:gpt-4o-2024-08-06:org::id", "o200k_base"),
        ("openai/gpt-4.1-mini", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("gpt-9", None),
        ("claude-opus-4-5", None),
        ("my-o3-like-model", None),
    ],
)
def test_a_vocabulary_is_used_only_for_models_known_to_count_with_it(name: str, encoding: str | None) -> None:
    assert family_of(name).encoding == encoding


@given(
    st.one_of(st.none(), st.integers(0, 10**7)),
    st.integers(0, 10**8),
    st.integers(0, 500),
    st.floats(0, 1),
    st.sampled_from(["gpt-5", "claude-opus-4-5", "x"]),
)
def test_more_of_anything_never_lowers_the_bound(
    anchor: int | None, size: int, messages: int, density: float, model: str
) -> None:
    def bound(more_bytes: int = 0, more_messages: int = 0, more_anchor: int = 0) -> int:
        return Estimator().input_bound(
            model,
            RequestSize(
                anchor_tokens=None if anchor is None else anchor + more_anchor,
                appended_bytes=size + more_bytes,
                appended_messages=messages + more_messages,
                density=density,
            ),
        )

    least = bound()
    assert least > (anchor or 0)
    assert min(bound(1000), bound(0, 3), bound(0, 0, 500)) >= least


def test_the_models_remembered_are_bounded_and_the_one_in_use_stays() -> None:
    estimator = Estimator()
    for n in range(3 * MAX_MODELS):
        estimator.observe_output(f"other-{n}", 10)
        estimator.observe_output("mine", 7_000) if n % 100 == 0 else None
    assert len(estimator._models) == MAX_MODELS
    assert len(estimator._models["mine"].output._recent) == len(range(0, 3 * MAX_MODELS, 100))
    assert "other-0" not in estimator._models


@pytest.mark.parametrize("count", [-1, True, 1.5, float("nan")])
def test_a_nonsense_count_is_refused_not_learned(count: Any) -> None:
    with pytest.raises(ValueError, match="an int of at least 0"):
        Estimator().observe_input("m", anchored(1, 1), count)
    with pytest.raises(ValueError, match="an int of at least 0"):
        Estimator().observe_output("m", count)
    estimator = Estimator()
    for both in ((count, 1), (1, count)):
        with pytest.raises(ValueError, match="an int of at least 0"):
            estimator.observe("m", anchored(1, 1), *both)
    assert not estimator._models


def test_what_is_observed_in_one_is_what_is_observed_apart() -> None:
    one, apart = Estimator(), Estimator()
    for n in range(100):
        size, tokens = anchored(100, 50 * n), 100 + 9 * n
        one.observe("m", size, tokens, n)
        apart.observe_input("m", size, tokens)
        apart.observe_output("m", n)
        assert one.input_bound("m", size) == apart.input_bound("m", size)
        assert one.output_bound("m", None) == apart.output_bound("m", None)


def test_threads_share_one_estimator() -> None:
    estimator, rng = Estimator(), random.Random(3)
    blob = measure([b64encode(rng.randbytes(3000)).decode()], anchor_tokens=100)

    def work(n: int) -> int:
        model = f"m{n % 7}"
        estimator.observe_output(model, 100 + n % 50)
        estimator.observe_input(model, blob, 100 + 2_800)
        return estimator.input_bound(model, blob) + estimator.output_bound(model, None)

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(work, range(4000))) > 100 + 2_800
    assert all(len(m.output._ordered) == 64 == len(m.output._recent) for m in estimator._models.values())
    assert all(sorted(m.output._recent) == m.output._ordered for m in estimator._models.values())
