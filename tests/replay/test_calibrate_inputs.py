"""What `calibrate` reads: files by any number of names; where no task is in it, it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import agentbudget as ab
from agentbudget.testing import ScriptedChatModel, scripted_reply


def _recorded(folder: Path, tasks: int) -> list[Path]:
    governor = ab.Governor(trace=folder)
    model = ScriptedChatModel(script=[scripted_reply("ok", input_tokens=10, output_tokens=1)], repeat_last=True)
    for _ in range(tasks):
        with ab.task("lookup", max_model_calls=3, governor=governor):
            model.invoke("hi")
    governor.close()
    return sorted(folder.glob("*.jsonl"))


def test_a_list_of_files_is_read_as_the_folder_they_are_in(tmp_path: Path) -> None:
    files = _recorded(tmp_path, 3)
    assert len(files) == 3
    whole = str(ab.calibrate(tmp_path))
    assert "3 of unknown success" in whole
    assert str(ab.calibrate(files)) == str(ab.calibrate([str(file) for file in files])) == whole


def test_nothing_to_calibrate_from_is_an_error() -> None:
    with pytest.raises(ab.TraceError, match="no task"):
        ab.calibrate([])


def test_an_empty_name_is_not_the_folder_one_happens_to_be_in() -> None:
    for read in (ab.Trace.load, ab.calibrate):
        with pytest.raises(ab.TraceError, match="name a trace file"):
            read("")
