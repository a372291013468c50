import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from configs.schema import Evaluation
from contracts.errors import ConfigError, DataError, ServerError, StorageError
from contracts.generation import Generation
from contracts.patients import Patient
from evaluation.verdicts import judge

SECTION = Evaluation(completion_tokens=32)
GOOD = "<Final answer> 0.7 </Final answer>"


def _patients(count: int = 3) -> list[Patient]:
    return [Patient(f"s{number}", "test", number % 2, f"evidence {number}", ("Lactate",), ("Lactate",))
            for number in range(count)]


def _render(messages: Sequence[Mapping[str, str]], prefill: str = "") -> list[int]:
    return [ord(character) for message in messages for character in message["content"]] + [ord(c) for c in prefill]


class _Door:
    """A scripted language model: answers by the patient's number, fails where told, remembers what was asked."""

    def __init__(self, texts: Mapping[int, str] | None = None, fails: Sequence[int] = ()) -> None:
        self.texts, self.fails = dict(texts or {}), set(fails)
        self.asked: list[dict[str, object]] = []
        self.in_flight = self.most = 0

    async def __call__(self, prompt_ids: Sequence[int], **settings: object) -> list[Generation]:
        prompt = "".join(map(chr, prompt_ids))
        number = next(number for number in range(100) if f"evidence {number}" in prompt)
        self.asked.append({"number": number, "prompt": prompt, **settings})
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0.02 if number in self.fails else 0.001 * number)
        self.in_flight -= 1
        if number in self.fails:
            raise ServerError("no answer", "the server answers", "start it again")
        text = self.texts.get(number, GOOD)
        top = tuple({character: math.log(0.75), "2": math.log(0.25)} if character == "7" else {"x": -1.0}
                    for character in text)
        return [Generation(text, tuple(map(ord, text)), tuple(text), tuple(-0.3 for _ in text), top, "stop",
                           len(prompt_ids), len(text))]


async def _judge(door: _Door, out: Path, arm: str = "vanilla", model: str = "base", section: Evaluation = SECTION,
                 count: int = 3, seed: int = 5):  # noqa: ANN202 - the frame
    style = arm if arm in ("vanilla", "think") else "decomposition"
    return await judge(arm, style, _patients(count), door, _render, model, section, "mortality", 5, seed, out)


async def test_each_patient_gets_one_verdict_with_both_readings(tmp_path: Path) -> None:
    verdicts = await _judge(_Door(), tmp_path)
    assert verdicts["stay_id"].to_list() == ["s0", "s1", "s2"]
    assert verdicts["label"].to_list() == [0, 1, 0]
    assert verdicts["probability"].to_list() == [0.7] * 3
    assert verdicts["token_probability"].to_list() == pytest.approx([0.75 * 0.75 + 0.25 * 0.25] * 3)
    assert verdicts["reading"].to_list() == ["tokens"] * 3


async def test_the_entropy_at_each_token_is_kept_and_survives_a_second_run(tmp_path: Path) -> None:
    first = await _judge(_Door(), tmp_path)
    door = _Door()
    assert (await _judge(door, tmp_path)).equals(first) and not door.asked
    tokens = first.row(0, named=True)["token_entropies"]
    assert [(token["start"], token["end"]) for token in tokens] == [(at, at + 1) for at in range(len(GOOD))]
    seven = GOOD.index("7")
    assert tokens[seven]["entropy"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-6)
    rest = 1 - math.exp(-1)
    assert tokens[0]["entropy"] == pytest.approx(math.exp(-1) - rest * math.log(rest), rel=1e-6)


async def test_an_unreadable_answer_is_kept_counted_and_scored_one_half(tmp_path: Path) -> None:
    verdicts = await _judge(_Door({1: "I cannot say"}), tmp_path)
    row = verdicts.row(1, named=True)
    assert verdicts.height == 3
    assert (row["parsed"], row["probability"], row["token_probability"], row["reading"]) == (False, 0.5, 0.5, "none")


async def test_a_percentage_is_read_as_stated_and_not_from_its_digits(tmp_path: Path) -> None:
    verdicts = await _judge(_Door({0: "<Final answer> 0.7% </Final answer>"}), tmp_path)
    row = verdicts.row(0, named=True)
    assert row["probability"] == pytest.approx(0.007)
    assert row["token_probability"] == row["probability"] and row["reading"] == "stated"


async def test_all_patients_are_asked_at_once_greedily_and_with_alternatives(tmp_path: Path) -> None:
    door = _Door()
    await _judge(door, tmp_path, count=12)
    assert door.most == 12
    settings = {(asked["temperature"], asked["top_logprobs"], asked["max_tokens"]) for asked in door.asked}
    assert settings == {(0.0, 20, 32)}


async def test_finished_answers_survive_a_failure_and_are_not_asked_again(tmp_path: Path) -> None:
    broken = _Door(fails=[2])
    with pytest.raises(ServerError):
        await _judge(broken, tmp_path)
    again = _Door()
    verdicts = await _judge(again, tmp_path)
    assert [asked["number"] for asked in again.asked] == [2]
    assert verdicts.height == 3


async def test_a_resumed_verdict_equals_the_first(tmp_path: Path) -> None:
    first = await _judge(_Door({1: "odd é\ufffd 🫀"}), tmp_path)
    silent = _Door(fails=range(3))
    assert (await _judge(silent, tmp_path)).equals(first)
    assert not silent.asked


@pytest.mark.parametrize("change", [
    {"arm": "think"}, {"model": "adapter-9f"}, {"section": Evaluation(completion_tokens=33)},
    {"section": Evaluation(completion_tokens=32, temperature=0.5)}, {"seed": 6}])
async def test_whatever_decides_an_answer_makes_it_asked_again(tmp_path: Path, change: dict[str, object]) -> None:
    await _judge(_Door(), tmp_path)
    door = _Door()
    await _judge(door, tmp_path, **change)  # type: ignore[arg-type]
    assert len(door.asked) == 3


async def test_stage_arms_ask_for_question_decomposition(tmp_path: Path) -> None:
    plain, tuned, bare = _Door(), _Door(), _Door()
    await _judge(plain, tmp_path / "a", arm="decomposition")
    await _judge(tuned, tmp_path / "b", arm="stage1+2", model="adapter-9f")
    await _judge(bare, tmp_path / "c", arm="vanilla")
    prompts = [sorted(str(asked["prompt"]) for asked in door.asked) for door in (plain, tuned, bare)]
    assert prompts[0] == prompts[1] != prompts[2]


async def test_a_torn_file_is_asked_again(tmp_path: Path) -> None:
    await _judge(_Door(), tmp_path)
    victim = sorted(tmp_path.glob("*.json"))[0]
    victim.write_text(victim.read_text()[:40])
    door = _Door()
    await _judge(door, tmp_path)
    assert len(door.asked) == 1
    assert json.loads(victim.read_text())["text"] == GOOD


async def test_stored_answers_hold_no_identifier_and_alternatives_only_at_digits(tmp_path: Path) -> None:
    await _judge(_Door(), tmp_path)
    for path in tmp_path.iterdir():
        record = json.loads(path.read_text())
        assert path.suffix == ".json" and "stay_id" not in record
        assert [token for token, known in zip(record["tokens"], record["top"], strict=True) if known] == ["0", "7"]


async def test_progress_counts_up_to_all_patients(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    await judge("vanilla", "vanilla", _patients(4), _Door(), _render, "base", SECTION, "mortality", 5, 0, tmp_path,
                lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="style 'oracle'"):
        await judge("any", "oracle", _patients(2), _Door(), _render, "base", SECTION, "mortality", 5, 0, tmp_path)
    with pytest.raises(DataError, match="no test patients"):
        await _judge(_Door(), tmp_path, count=0)
    with pytest.raises(DataError, match="1 test stays stand twice"):
        twice = [*_patients(2), *_patients(1)]
        await judge("any", "vanilla", twice, _Door(), _render, "base", SECTION, "mortality", 5, 0, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the folder"):
        await _judge(_Door(), tmp_path / "file")
