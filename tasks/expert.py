"""Stage `expert`: ConCare trained on the cohort, several seeds, in a child process."""

from __future__ import annotations

import shutil

from configs.load import dump
from tasks.stage import Made, Work, listed, stage


@stage("expert", settings=("expert", "study.seed"), packages=("torch",), jobs=("models.expert.training",))
def expert(work: Work) -> Made:
    """Trains the experts and keeps all of them, the winner on top."""
    out = work.scratch / "training"
    done = work.job("models.expert.training", {"cohort": str(work.inputs["cohort"]), "out": str(out),
                                               "section": dump(work.config.expert), "seed": work.config.study.seed})
    shutil.copytree(out, work.out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.partial", "done.json"))
    metrics = {name: float(value) for name, value in done.get("metrics", {}).items()}
    return Made(metrics=metrics, show=("expert.json",), model="concare",
                summary=listed(metrics))
