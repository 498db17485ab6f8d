"""The adviser as a whole: what may be claimed, and what is said of a record that lacks something."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentbudget.errors import ConfigurationError
from agentbudget.finops.advisor import Lever, Options, Saving, advise
from tests.finops.advised import TODAY, called, conversation, folder, of, run, told
from tests.finops.traces import DAY, START, opened


@settings(deadline=None, max_examples=15)  # an engine is opened and prices are loaded for each
@given(
    inputs=st.lists(st.integers(1, 300_000), min_size=1, max_size=6),
    model=st.sampled_from(["gpt-4o", "claude-sonnet-4-5", "gpt-5"]),
)
def test_no_lever_saves_more_than_was_spent(
    tmp_path_factory: pytest.TempPathFactory, inputs: list[int], model: str
) -> None:
    where = folder(tmp_path_factory.mktemp("t"), conversation(model, *inputs))
    advice = told(where, Options(ladder=("openai:gpt-4o-mini",), can_wait=("job",)))
    assert all(lever.saving.high <= advice.recorded for lever in advice.levers)
    assert advice.at_most <= advice.recorded
    expected = [lever.saving.expected for lever in advice.levers]
    assert expected == sorted(expected, reverse=True)


def test_levers_are_never_added_up_to_a_saving(tmp_path: Path) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))
    text = str(told(where, Options(ladder=("openai:gpt-4o-mini",), can_wait=("job",))))
    assert "Do not add them up (together at most" in text
    assert "you save" not in text.lower()
    assert all(len(line) <= 100 for line in text.splitlines() if str(where) not in line)


def test_a_month_is_the_recorded_rate_and_not_made_of_less_than_a_day(tmp_path: Path) -> None:
    events = [*conversation("gpt-4o", 10_000, 12_000), *run("late", START + 10 * DAY, "gpt-4o")]
    (lever,) = of(told(folder(tmp_path, events)), "caching")
    assert lever.month is not None
    assert lever.month.expected == pytest.approx(lever.saving.expected * 3.04375, rel=1e-3)
    (short,) = of(told(folder(tmp_path, conversation("gpt-4o", 10_000, 12_000))), "caching")
    assert short.month is None


def test_clocks_that_cannot_be_right_are_told_and_stretch_no_month(tmp_path: Path) -> None:
    events = [*conversation("gpt-4o", 10_000, 12_000), *run("early", 5.0, "gpt-4o"), *run("late", 4e9, "gpt-4o")]
    advice = told(folder(tmp_path, events))
    assert advice.days is not None
    assert advice.days < 1
    assert any("$0.0070 (11.1% of all) has times that cannot be" in note for note in advice.notes), advice.notes


def test_what_the_record_lacks_is_said_with_its_share(tmp_path: Path) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0}
    events = opened("t", name="")[1:]
    events += called("a", "t", START, "gpt-4o", usage)
    events += called("b", "t", START + 20 * DAY, "gpt-4o", usage, priced=False, cost=0, price=None)
    events += called("c", "t", START + 20 * DAY, "gpt-4o", usage, source="estimated")
    events += called("d", "t", START + 20 * DAY, "gpt-4o", {}, cost=2_500_000)
    notes = told(folder(tmp_path, events), Options(can_wait=("x",))).notes
    for part in (
        "1 of 4 model calls have no price, with 33.3% of all tokens",
        "19 of 21 days have no call",
        "$0.0025 (33.3% of all) rests on estimated usage",
        "$0.0025 (33.3% of all) has no token counts",
        "$0.0075 (100.0% of all) has neither a name nor a feature",
        "$0.0075 (100.0% of all) is in tasks without an outcome",
    ):
        assert any(part in note for note in notes), (part, notes)


def test_small_levers_are_counted(tmp_path: Path) -> None:
    where = folder(tmp_path, conversation("gpt-4o", 2_000, 2_100), run("big", START, "gpt-4o", input_tokens=9_000_000))
    advice = advise(where, today=TODAY)
    assert not of(advice, "caching")
    assert any("more levers save less than 0.1%" in note for note in advice.notes)


def test_traces_of_others_are_read_too(tmp_path: Path) -> None:
    rows = ['{"type":"trajectory","traj_id":"t","source":"agent","success":true,"cost":0.06}']
    for number in range(2):
        row = f'"tokens_in":{10_000 + 1000 * number},"tokens_out":10,"cached":0,"cost":0.03'
        rows.append(f'{{"type":"step","traj_id":"t","step":{number},"kind":"model","name":"gpt-4o",{row}}}')
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(rows))
    advice = advise(file, today=TODAY)
    assert advice.days is None
    assert [lever.kind for lever in advice.levers] == ["caching"]
    assert advice.levers[0].month is None


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"false_halts": 2}, {"ladder": "gpt-5"}, {"least_prefix": -1}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Options(**options)


def test_what_is_exact_has_no_range() -> None:
    words = dict.fromkeys(("title", "reason", "computed", "change", "verify", "risk"), "x")
    with pytest.raises(ConfigurationError, match="no range"):
        Lever(kind="batch", confidence="exact", saving=Saving.up_to(5), month=None, **words)
    with pytest.raises(ConfigurationError, match="in this order"):
        Saving(low=2, expected=1, high=3)


def test_a_record_without_calls_has_no_advice(tmp_path: Path) -> None:
    advice = told(folder(tmp_path, opened("t")[1:]), Options(ladder=("openai:gpt-5",), can_wait=("job",)))
    assert (advice.recorded, advice.levers, advice.at_most) == (0, (), 0)
    assert "No change found" in str(advice)


def test_caching_on_recorded_runs_is_what_the_steps_say_by_hand() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "trajectories"
    file = folder / "mini_swe_agent_gemini3pro_swebench_verified.jsonl.gz"
    if not file.exists():
        pytest.skip("the recorded trajectories are not beside this checkout")
    sent, tokens = 0, 0
    with gzip.open(file, "rt") as rows:
        for row in map(json.loads, rows):
            if row["type"] == "trajectory":
                sent = 0
            elif row["kind"] == "model" and row.get("cost") and row.get("tokens_in"):
                if 1024 <= sent <= row["tokens_in"]:
                    tokens += max(0, sent - row["cached"])
                sent = row["tokens_in"]
    advice = advise(file, today=TODAY)
    (lever,) = of(advice, "caching")
    assert lever.saving.high == pytest.approx(tokens * 1_800, rel=0.02), "$2 a million fresh, $0.20 from the cache"
    assert all(each.saving.high <= advice.recorded for each in advice.levers)
    assert {each.kind for each in advice.levers} >= {"caching", "ceiling"}
