"""Rollouts: completions of the present policy, from the vLLM server or from transformers, as TRL's `rollout_func`.

The item is one rollout batch: G completions for each of its prompts, as token ids, never tokenised again. In: the tasks
of the batch and the trained model. Out: ids. Each round of a batch is stored by optimiser step and adapter content, so
that a job that was killed and resumed uses the same rollouts again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl
import torch
from torch.nn.utils.rnn import pad_sequence

from configs.schema import Grpo, Serving
from contracts.errors import ServerError
from contracts.generation import Generation
from models.policy.adapter import adapter_digest, save_adapter
from models.policy.examples import STYLE, Task
from models.policy.resampling import Completion, Filled, Group, Resampling, fill, replacements
from models.policy.spelling import Speller
from prompts.grammar import parse
from prompts.token_risk import TOP_LOGPROBS, risk_of_tokens
from serving.adapters import AdapterShelf
from serving.client import Client

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import GRPOTrainer

    from models.policy.chat import ChatTokenizer


@dataclass(frozen=True)
class Request:
    """One completion that is asked for: whose, the how many-th of the batch, and the seed of its sampling."""

    task: Task
    seed: int


class Engine(Protocol):
    """What generates."""

    def __call__(self, model: PeftModel, adapter: Path, requests: Sequence[Request]) -> list[Completion]: ...

    def close(self) -> None: ...


class RolloutFunc:
    """TRL's `rollout_func(prompts, trainer)`: prompts are stay ids, repeated G times each.

    Args:
        tasks: by stay id. engine: what generates. out: the job's folder. seed: the study's.
        end_id: the end-of-turn token. kept: newest served adapters left on disk.
        resampling: when groups give way to those of other prompts; none: never.
    """

    def __init__(self, tasks: Mapping[str, Task], engine: Engine, out: Path, seed: int, end_id: int, kept: int,
                 resampling: Resampling | None = None) -> None:
        self._tasks, self._engine, self._out, self._seed, self._end = tasks, engine, out, seed, end_id
        self._kept, self._resampling = kept, resampling

    def __call__(self, prompts: Sequence[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """Returns prompt_ids, completion_ids, and columns for the rewards: stay_id, whose they are after resampling,
        and risk, by token probability.

        Log-probabilities are the trainer's own (None here).
        """
        step = int(trainer.state.global_step)
        model = trainer.accelerator.unwrap_model(trainer.model)
        adapter = save_adapter(model, self._out / "served" / f"step-{step}")
        digest = adapter_digest(adapter)[:12]

        def generate(stays: Sequence[str], number: int) -> list[Group]:
            requests = self._requests(stays, step)
            store = self._out / "rollouts" / f"{step:06d}-{digest}{f'-{number}' if number else ''}.parquet"
            completions = read_batch(store, requests)
            if completions is None:
                completions = self._engine(model, adapter, requests)
                write_batch(store, requests, completions)
            return self._groups(requests, completions, number)

        batch = self._filled(generate(prompts, 0), generate, step)
        self._tidy(adapter)
        rows = [(group.stay_id, one) for group in batch.kept for one in group.completions]
        return {"prompt_ids": [list(self._tasks[stay_id].prompt_ids) for stay_id, _ in rows],
                "completion_ids": [list(one.ids) for _, one in rows], "logprobs": None,
                "stay_id": [stay_id for stay_id, _ in rows], "risk": [one.risk for _, one in rows]}

    def _filled(self, first: list[Group], generate: Callable[[Sequence[str], int], list[Group]], step: int) -> Filled:
        """The batch after dynamic sampling."""
        rule = self._resampling
        if rule is None:
            return Filled(tuple(first))
        others = replacements(self._tasks, {group.stay_id for group in first}, self._seed, step)
        size = len(first[0].completions)
        batch = fill(first, others, lambda stays, number: generate([one for one in stays for _ in range(size)], number),
                     rule.judge.has_signal, rule.rounds, rule.affordable(step))
        rule.judge.note(batch)
        return batch

    def _groups(self, requests: Sequence[Request], completions: Sequence[Completion], number: int) -> list[Group]:
        rows = zip((request.task.stay_id for request in requests), completions, strict=True)
        return [Group(stay_id, tuple(one if one.ids else Completion((self._end,)) for _, one in group), number)
                for stay_id, group in groupby(rows, key=lambda row: row[0])]

    def _requests(self, prompts: Sequence[str], step: int) -> list[Request]:
        seen: dict[str, int] = {}
        requests = []
        for stay_id in prompts:
            sample = seen[stay_id] = seen.get(stay_id, -1) + 1
            requests.append(Request(self._tasks[stay_id], rollout_seed(self._seed, step, stay_id, sample)))
        return requests

    def _tidy(self, newest: Path) -> None:
        """Keeps the newest adapters, those that a server may still read; a resume starts from a checkpoint."""
        folders = sorted(newest.parent.iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
        for folder in folders[:-self._kept]:
            shutil.rmtree(folder)


class TransformersEngine:
    """Generates in this process, the prompts of one batch left-padded.

    Args:
        section: temperature, longest completion and reading. tokenizer: its end and padding tokens.
        rows: completions generated at once.
    """

    def __init__(self, section: Grpo, tokenizer: ChatTokenizer, rows: int) -> None:
        self._section, self._tokenizer, self._rows = section, tokenizer, rows
        self._speller = Speller(tokenizer)

    def __call__(self, model: PeftModel, adapter: Path, requests: Sequence[Request]) -> list[Completion]:  # noqa: ARG002
        """Completions of the model as it is in memory; `adapter` is its copy on disk."""
        training = model.training
        model.eval()
        try:
            with torch.random.fork_rng():
                return [one for start in range(0, len(requests), self._rows)
                        for one in self._generate(model, requests[start:start + self._rows])]
        finally:
            model.train(training)

    def close(self) -> None:
        """Nothing is held open."""

    @torch.no_grad()
    def _generate(self, model: PeftModel, requests: Sequence[Request]) -> list[Completion]:
        torch.manual_seed(requests[0].seed)
        rows = [torch.tensor(request.task.prompt_ids, device=model.device) for request in requests]
        ids = pad_sequence(rows, batch_first=True, padding_value=self._tokenizer.pad_id, padding_side="left")
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        by_tokens = self._section.reading == "tokens"
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0,
                             temperature=self._section.temperature, max_new_tokens=self._section.completion_tokens,
                             eos_token_id=self._tokenizer.eos_id, pad_token_id=self._tokenizer.pad_id,
                             return_dict_in_generate=True, output_logits=by_tokens)
        found = [up_to_end(row, self._tokenizer.eos_id) for row in out.sequences[:, ids.shape[1]:].tolist()]
        if not by_tokens:
            return [Completion(one) for one in found]
        likeliest = [step.float().log_softmax(dim=-1).topk(TOP_LOGPROBS) for step in out.logits]  # L of (B, 20)
        return [Completion(one, _risk(one, [(top.values[row].tolist(), top.indices[row].tolist())
                                            for top in likeliest[:len(one)]], self._speller))
                for row, one in enumerate(found)]


def _risk(ids: Sequence[int], likeliest: Sequence[tuple[Sequence[float], Sequence[int]]], speller: Speller
          ) -> float | None:
    """The risk by token probability of L tokens; `likeliest`: for each its alternatives' log-probabilities and ids."""
    text = speller.spell(ids)[0]
    top = tuple({speller.text_of(token): value for value, token in zip(values, tokens, strict=True)}
                for values, tokens in likeliest)
    answer = Generation(text, tuple(ids), tokens=tuple(map(speller.text_of, ids)), top=top)
    return risk_of_tokens(answer, parse(text, STYLE))


@dataclass(frozen=True)
class LentServer:
    """A server that the process which started this job keeps up; restarting it is not ours."""

    model_name: str

    def ensure(self) -> None:
        """Nothing: a request that fails is tried again, and a server that stays away ends the job, which can go on."""


class VllmEngine:
    """Asks the model server, with the trained adapter loaded there under a name of its own.

    One event loop, client and shelf serve all batches, so that the shelf knows which older adapter makes room.

    Args:
        url, model_name: the server. api_key: its key. serving: limits and retries. context: its longest sequence.
    """

    def __init__(self, url: str, model_name: str, api_key: str, serving: Serving, section: Grpo, context: int) -> None:
        self._section, self._runner = section, asyncio.Runner()
        self._client = Client(url, api_key, serving, context)
        self._shelf = AdapterShelf(self._client, LentServer(model_name))

    def __call__(self, model: PeftModel, adapter: Path, requests: Sequence[Request]) -> list[Completion]:  # noqa: ARG002
        """Completions of the adapter as it lies on disk."""
        return self._runner.run(self._batch(adapter, requests))

    def close(self) -> None:
        """Closes the connections."""
        self._runner.run(self._client.close())
        self._runner.close()

    async def _batch(self, adapter: Path, requests: Sequence[Request]) -> list[Completion]:
        name = await self._shelf.load(adapter)
        return list(await asyncio.gather(*(self._one(name, request) for request in requests)))

    async def _one(self, name: str, request: Request) -> Completion:
        by_tokens = self._section.reading == "tokens"
        generations = await self._client.generate(
            request.task.prompt_ids, model=name, max_tokens=self._section.completion_tokens,
            temperature=self._section.temperature, seed=request.seed,
            top_logprobs=TOP_LOGPROBS if by_tokens else 0)
        found = generations[0]
        return Completion(tuple(found.token_ids),
                          risk_of_tokens(found, parse(found.text, STYLE)) if by_tokens else None)


def make_engine(job: Mapping[str, Any], section: Grpo, tokenizer: ChatTokenizer) -> Engine:
    """The engine that the section names.

    Args:
        job: for `vllm`, "server": {"url", "model_name"} and "context"; the key comes from EAG_RL_SERVER_KEY.

    Raises:
        ServerError: `vllm` without a server in the job.
    """
    if section.engine == "transformers":
        return TransformersEngine(section, tokenizer, rows=section.generations)
    server = job.get("server")
    if not server:
        raise ServerError("no server in the job", "policy.grpo.engine=vllm generates on a model server",
                          "run the stage with `eag-rl`, or set policy.grpo.engine=transformers")
    return VllmEngine(server["url"], server["model_name"], os.environ.get("EAG_RL_SERVER_KEY", ""),
                      Serving.model_validate(job.get("serving") or {}), section, job["context"])


def rollout_seed(study: int, step: int, stay_id: str, sample: int) -> int:
    """A seed in [0, 2^31) that depends on where in the study a rollout stands, not on when it is generated."""
    text = json.dumps([study, "rollout", step, stay_id, sample])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def up_to_end(ids: Sequence[int], end_id: int) -> tuple[int, ...]:
    """The ids up to and with the first end token; what a batch was padded with falls away."""
    return tuple(ids[:ids.index(end_id) + 1] if end_id in ids else ids)


def write_batch(path: Path, requests: Sequence[Request], completions: Sequence[Completion]) -> None:
    """Stores a batch so that a reader finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pl.DataFrame({"stay_id": [request.task.stay_id for request in requests],
                  "seed": [request.seed for request in requests],
                  "prompt": [_digest(request.task.prompt_ids) for request in requests],
                  "ids": [list(one.ids) for one in completions], "risk": [one.risk for one in completions]},
                 schema_overrides={"ids": pl.List(pl.Int64), "risk": pl.Float64}).write_parquet(temporary)
    temporary.replace(path)


def read_batch(path: Path, requests: Sequence[Request]) -> list[Completion] | None:
    """The stored completions of exactly these requests, None where there are none."""
    if not path.is_file():
        return None
    rows = pl.read_parquet(path)
    asked = [(request.task.stay_id, request.seed, _digest(request.task.prompt_ids)) for request in requests]
    if list(rows.select("stay_id", "seed", "prompt").iter_rows()) != asked:
        return None
    return [Completion(tuple(ids), risk) for ids, risk in rows.select("ids", "risk").iter_rows()]


def _digest(ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()[:16]
