"""Stage `readings`: the expert's risk and attention for every stay, and the health of that attention."""

from __future__ import annotations

import json
import shutil

from configs.load import dump
from lineage.fingerprint import flatten
from tasks.stage import Made, Work, stage

_FILES = ("readings.parquet", "risks.parquet", "health.json")


@stage("readings", settings=("expert", "study.seed"), packages=("torch",), jobs=("models.expert.attention",))
def readings(work: Work) -> Made:
    """Reads the winner's attention at the last visit of every stay."""
    out = work.scratch / "reading"
    work.job("models.expert.attention", {
        "cohort": str(work.inputs["cohort"]), "expert": str(work.inputs["expert"]), "out": str(out),
        "section": dump(work.config.expert), "seed": work.config.study.seed})
    for path in out.iterdir():
        if path.name not in ("done.json", "progress.jsonl"):
            shutil.copy2(path, work.out / path.name)
    health = json.loads((out / "health.json").read_text(encoding="utf-8"))
    numbers = {name: float(value) for name, value in flatten(health).items()
               if isinstance(value, int | float) and not isinstance(value, bool)}
    warnings = health.get("warnings", [])
    return Made(metrics=numbers, show=("health.json",),
                summary="\n".join([*(f"- {name}: {value:.4g}" for name, value in numbers.items()),
                                   *(f"- **warning**: {text}" for text in warnings)]))
