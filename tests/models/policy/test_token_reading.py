"""R_cls on the token probability: each engine reads it, a stored batch keeps it, training is rewarded by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from configs.schema import Grpo, Lora, Serving
from contracts.generation import Generation
from models.policy.adapter import new_adapter, save_adapter
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer
from models.policy.examples import Task
from models.policy.grpo import optimise
from models.policy.loading import load_base
from models.policy.resampling import Completion
from models.policy.rollouts import Request, TransformersEngine, make_engine, read_batch, write_batch
from models.policy.spelling import Speller
from prompts.grammar import parse, render_final
from prompts.templates import messages
from prompts.token_risk import risk_of_tokens
from rewards.outcome import outcome_reward
from support.openai_server import ScriptedServer

TOKENS = {"reading": "tokens", "completion_tokens": 75}


@pytest.fixture(scope="module")
def model(taught_folder: Path) -> Any:
    return new_adapter(load_base(taught_folder, "float32"), Lora(rank=4, alpha=8))


def read_again(model: Any, tokenizer: ChatTokenizer, request: Request, ids: tuple[int, ...]) -> float | None:
    """The risk of a completion from a forward pass over all of it, with every token of the vocabulary known."""
    prompt = len(request.task.prompt_ids)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*request.task.prompt_ids, *ids]])).logits[0, prompt - 1:-1]
    speller = Speller(tokenizer)
    words = [speller.text_of(token) for token in range(logits.shape[1])]
    top = tuple({word: value for word, value in zip(words, row.tolist(), strict=True) if value > -12.0}
                for row in logits.log_softmax(dim=-1))
    text = speller.spell(ids)[0]
    return risk_of_tokens(Generation(text, ids, tokens=tuple(words[token] for token in ids), top=top),
                          parse(text, "decomposition"))


@pytest.mark.slow
def test_rollouts_of_this_process_carry_the_risk_of_a_plain_forward_pass(
        model: Any, taught_folder: Path, patients_frame: pl.DataFrame) -> None:
    tokenizer = load_tokenizer(taught_folder)
    prompts = [ChatRenderer(tokenizer)(messages(text, "decomposition", "mortality", 2))
               for text in patients_frame["evidence"][:4]]
    requests = [Request(Task(str(index), tuple(prompt), 0, ()), index) for index, prompt in enumerate(prompts * 3)]
    found = TransformersEngine(Grpo(**TOKENS), tokenizer, rows=4)(model, Path(), requests)
    expected = [read_again(model, tokenizer, request, one.ids) for request, one in zip(requests, found, strict=True)]
    assert [one.risk is None for one in found] == [risk is None for risk in expected]
    told = [(one.risk, risk) for one, risk in zip(found, expected, strict=True) if risk is not None]
    assert len({risk for risk, _ in told}) > 2
    assert all(risk == pytest.approx(other, abs=0.01) for risk, other in told)
    stated = TransformersEngine(Grpo(completion_tokens=75), tokenizer, rows=4)(model, Path(), requests)
    assert [one.ids for one in stated] == [one.ids for one in found] and not any(one.risk for one in stated)


@pytest.mark.parametrize("reading", ["stated", "tokens"])
def test_rollouts_of_a_server_carry_it_where_it_is_asked_for(
        reading: str, model: Any, taught_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, task = save_adapter(model, tmp_path / "step-0"), Task("a", (5, 6), 0, ())
    with ScriptedServer(lambda _: render_final("Will the patient die?", ("glucose",), 0.3)) as server:
        monkeypatch.setenv("EAG_RL_SERVER_KEY", server.key)
        engine = make_engine({"server": {"url": server.url, "model_name": "base"}, "context": 400,
                              "serving": Serving().model_dump()},
                             Grpo(engine="vllm", completion_tokens=300, reading=reading), load_tokenizer(taught_folder))
        [found] = engine(model, adapter, [Request(task, 1)])
        engine.close()
        [body] = server.requests()
    # The server knows one alternative for each token, so the digits that are written are all there is: 0.30 to 0.31.
    assert found.risk == (pytest.approx(0.305) if reading == "tokens" else None)
    assert body.get("logprobs") == (20 if reading == "tokens" else None)


def test_a_stored_batch_keeps_it(tmp_path: Path) -> None:
    requests = [Request(Task(name, (1, 2), 0, ()), 3) for name in "abc"]
    batch = [Completion((4,), 0.25), Completion((5, 6)), Completion((7,), 0.0)]
    write_batch(tmp_path / "batch.parquet", requests, batch)
    assert read_batch(tmp_path / "batch.parquet", requests) == batch


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["stated", "tokens"])
def test_training_is_rewarded_by_what_is_read(reading: str, policy_job: Callable[..., dict[str, Any]]) -> None:
    values = policy_job(reading=reading, steps=2, generations=8, micro_batch=4)
    optimise(values)
    labels = dict(pl.read_parquet(values["patients"]).select("stay_id", "label").iter_rows())
    rollouts = pl.read_parquet(Path(values["out"]) / "rollouts.parquet").filter("parsed")
    assert (rollouts["token_probability"].null_count() == rollouts.height) == (reading == "stated")
    column = "probability" if reading == "stated" else "token_probability"
    read = rollouts.drop_nulls(column)
    assert read.height > 2
    for stay_id, risk, reward in read.select("stay_id", column, "outcome_reward").iter_rows():
        assert reward == pytest.approx(outcome_reward(risk, labels[stay_id]))
