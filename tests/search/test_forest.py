"""Many patients: records that survive kill -9, failures, a server that comes back."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from configs.schema import Search
from contracts.errors import ContractError, PromptTooLongError, ServerError, StorageError
from search.forest import grow
from search.harvest import harvest
from search.records import record_path
from support import search_child
from support.scripted_model import ScriptedModel
from support.search_child import SECTION, patients, reasoner


def _searched(model):
    """Numbers of the patients that a model was asked about."""
    marks = (call["prompt"].partition("Heart Rate: ")[2] for call in model.calls)
    return {int("".join(letter for letter in mark.partition("\n")[0])) for mark in marks}


def _contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_every_patient_has_one_file_inside_the_folder_whatever_the_stay_is_called(tmp_path):
    grown = await grow(patients(4), reasoner(ScriptedModel()), tmp_path / "trees")
    assert [one.stay_id for one in grown] == [one.stay_id for one in patients(4)]
    assert [path.name for path in tmp_path.iterdir()] == ["trees"]
    assert len(list((tmp_path / "trees").glob("*.json"))) == 4 == len(list((tmp_path / "trees").iterdir()))
    assert harvest(grown, 2).height == 8


async def test_a_second_run_asks_the_model_nothing_and_returns_the_same(tmp_path):
    first = await grow(patients(3), reasoner(ScriptedModel()), tmp_path)
    before, model, seen = _contents(tmp_path), ScriptedModel(), []
    second = await grow(patients(3), reasoner(model), tmp_path, on_done=lambda *counts: seen.append(counts))
    assert second == first
    assert not model.calls
    assert _contents(tmp_path) == before
    assert seen == [(3, 3)]


async def test_only_what_is_missing_or_unreadable_is_searched_again(tmp_path):
    everyone = patients(5)
    first = await grow(everyone, reasoner(ScriptedModel()), tmp_path)
    before = _contents(tmp_path)
    record_path(tmp_path, everyone[1].stay_id).unlink()
    broken = record_path(tmp_path, everyone[2].stay_id)
    broken.write_text(broken.read_text()[:200])
    record_path(tmp_path, everyone[3].stay_id).write_text(json.dumps([1, 2]))
    (tmp_path / ".half.json.1.tmp").write_text("{")
    model = ScriptedModel()
    assert await grow(everyone, reasoner(model), tmp_path) == first
    assert _searched(model) == {1, 2, 3}
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("change", ["seed", "model", "depth", "rewards", "label", "evidence"])
async def test_a_record_made_from_something_else_is_redone(tmp_path, change):
    await grow(patients(2), reasoner(ScriptedModel()), tmp_path)
    everyone, model = patients(2), ScriptedModel()
    other = reasoner(model)
    if change == "depth":
        other = replace(other, section=SECTION.model_copy(update={"depth": 1}))
    elif change in ("seed", "model"):
        other = replace(other, **{change: {"seed": 7, "model": "other"}[change]})
    elif change in ("label", "evidence"):
        everyone = [replace(one, **{change: {"label": 1 - one.label, "evidence": one.evidence + "0"}[change]})
                    for one in everyone]
    await grow(everyone, other, tmp_path, rewards_key="beta=2" if change == "rewards" else "")
    assert len(_searched(model)) == 2


async def test_how_many_run_at_once_and_how_many_are_kept_leave_records_valid(tmp_path):
    await grow(patients(2), reasoner(ScriptedModel()), tmp_path)
    model = ScriptedModel()
    section = SECTION.model_copy(update={"patients_at_once": 9, "keep": 1})
    await grow(patients(2), reasoner(model, section), tmp_path)
    assert not model.calls


async def test_no_more_patients_than_allowed_are_searched_at_once(tmp_path):
    model = ScriptedModel()
    most = 0

    async def generate(*args, **settings):
        nonlocal most
        answer = await model(*args, **settings)
        most = max(most, len(_searched(model)) - len(list(tmp_path.glob("*.json"))))
        return answer

    await grow(patients(8), reasoner(generate), tmp_path)
    assert most == 2


async def test_patients_together_give_the_trees_of_patients_alone(tmp_path):
    together = await grow(patients(3), reasoner(ScriptedModel()), tmp_path / "a")
    alone = [(await grow([one], reasoner(ScriptedModel()), tmp_path / "b"))[0] for one in reversed(patients(3))]
    assert together == list(reversed(alone))


async def test_one_patient_that_fails_fails_the_run_after_all_others_are_saved(tmp_path):
    model = ScriptedModel()

    async def generate(prompt_ids, **settings):
        if "Heart Rate: 0\n" in "".join(map(chr, prompt_ids)):
            raise PromptTooLongError("prompt of 9000 tokens", "at most 4096", "raise serving.context")
        return await model(prompt_ids, **settings)

    with pytest.raises(PromptTooLongError, match=r"1 of 4 searches failed.*9000.*serving\.context"):
        await grow(patients(4), reasoner(generate), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 3
    again = ScriptedModel()
    await grow(patients(4), reasoner(again), tmp_path)
    assert _searched(again) == {0}


class _Mortal:
    """A server that dies at some calls and lives again after `recover`."""

    def __init__(self, deaths):
        self.model, self.deaths, self.alive, self.recoveries, self.asked = ScriptedModel(), set(deaths), True, 0, 0

    async def __call__(self, *args, **settings):
        self.asked += 1
        if self.asked in self.deaths:
            self.alive = False
        await asyncio.sleep(0)
        if not self.alive:
            raise ServerError("connection refused", "the server answers", "see its log")
        return await self.model(*args, **settings)

    async def recover(self):
        await asyncio.sleep(0.01)
        self.recoveries += 1
        self.alive = True


async def test_a_server_that_dies_in_mid_search_is_recovered_once_for_all_and_the_trees_are_the_same(tmp_path):
    calm = await grow(patients(4), reasoner(ScriptedModel()), tmp_path / "calm")
    server = _Mortal({9, 40})
    stormy = await grow(patients(4), reasoner(server), tmp_path / "stormy", recover=server.recover)
    assert server.recoveries == 2
    assert stormy == calm


async def test_a_server_that_stays_dead_ends_the_run_at_once_and_finished_patients_stay(tmp_path):
    server = _Mortal({60})

    async def fail_to_recover():
        server.recoveries += 1

    with pytest.raises(ServerError, match="refused"):
        await grow(patients(8), reasoner(server), tmp_path, recover=fail_to_recover, tries=2)
    assert 1 <= server.recoveries <= 8
    assert 1 <= len(list(tmp_path.glob("*.json"))) < 8


async def test_without_a_hook_a_server_error_ends_the_run(tmp_path):
    server = _Mortal({1})
    with pytest.raises(ServerError):
        await grow(patients(2), reasoner(server), tmp_path)


async def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot use .*file.*paths\.workspace"):
        await grow(patients(1), reasoner(ScriptedModel()), tmp_path / "file")


async def test_a_full_disk_ends_the_run_with_a_storage_error_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    writers = itertools.count()

    def no_space(_):
        time.sleep(0.2 * next(writers))  # the second writer is cancelled in mid-write
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("search.records.os.fsync", no_space)
    with pytest.raises(StorageError, match="No space left"):
        await grow(patients(2), reasoner(ScriptedModel()), tmp_path)
    assert not list(tmp_path.iterdir())


async def test_a_stay_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(ContractError, match="repeats 1"):
        await grow([*patients(2), patients(1)[0]], reasoner(ScriptedModel()), tmp_path)


async def test_an_empty_forest_is_no_error(tmp_path):
    assert await grow([], reasoner(ScriptedModel()), tmp_path, on_done=lambda *_: None) == []


async def test_the_settings_of_the_section_reach_the_model(tmp_path):
    model = ScriptedModel()
    section = Search(rollouts=1, depth=2, candidates=2, temperature=1.3, question_tokens=11, answer_tokens=22)
    await grow(patients(1), reasoner(model, section), tmp_path)
    scores = [call for call in model.calls if call["top_logprobs"]]
    assert {call["temperature"] for call in scores} == {0.0}
    assert {call["temperature"] for call in model.calls if call not in scores} == {1.3}
    assert {call["max_tokens"] for call in model.calls if call["stop"]} == {11, 22}
    assert {call["model"] for call in model.calls} == {"base"}


@pytest.mark.slow
async def test_kill_9_loses_nothing_that_was_finished(tmp_path):
    count = 12
    command = [sys.executable, search_child.__file__, str(tmp_path), str(count), "0.05"]
    child = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.json"))) < 3:
            assert child.poll() is None and time.monotonic() < deadline, "the child ended too early or hangs"
            await asyncio.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert 3 <= len(finished) < count
    model = ScriptedModel()
    grown = await grow(patients(count), reasoner(model), tmp_path)
    assert len(grown) == count
    assert _searched(model) == {number for number, one in enumerate(patients(count))
                                if record_path(tmp_path, one.stay_id).name not in finished}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in finished} == finished
    assert grown == await grow(patients(count), reasoner(ScriptedModel()), tmp_path / "undisturbed")
