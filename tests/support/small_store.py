"""A store with one finished study made by hand: cohort, patients, base, rl, verdicts, baselines, report.

In: a folder. Out: the store and its artifacts by role; the study's name is "small", its patients are invented.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save

from lineage.artifact import Artifact, file_digest
from lineage.fingerprint import Recipe
from lineage.store import Store

Files = Mapping[str, bytes | str | pl.DataFrame]

STAYS = ["stay-00001", "stay-00002"]
EVIDENCE = "Lactate: 2.1 mmol/L on day 0, then 7.4 mmol/L on day 2 (rising quickly)"
ANSWER = "The lactate rises within two days, which makes a fatal course much more likely."
SHARED = '<html><body><section id="results"><p>AUROC 81.2</p></section></body></html>'
PAGE = SHARED.replace("</body>", f'<section id="case"><pre>{EVIDENCE}</pre></section></body>')


def write_files(folder: Path, files: Files) -> None:
    """Writes each under its name: a frame as parquet, a text as UTF-8."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def put(store: Store, kind: str, files: Files, inputs: Mapping[str, Artifact] | None = None, variant: str = "",
        study: str = "small", label: str = "", **facts: object) -> Artifact:
    """Commits an artifact with these files and remembers it as the study's latest."""
    made_of = Recipe(kind, {role: source.sha256 for role, source in (inputs or {}).items()},
                     {"variant": variant} if variant else {"files": sorted(files)}, {}, {})
    with store.drafting(kind, made_of.key, study) as draft:
        write_files(draft.out, files)
        artifact = store.commit(draft, kind, made_of, inputs or {}, {
            "sources": {}, "metrics": {}, "commit": "c" * 40, "study": study, "started": time.time(), **facts})
    store.remember(study, label or (f"{kind}-{variant}" if variant else kind), made_of)
    return artifact


def small_store(folder: Path) -> tuple[Store, dict[str, Artifact]]:
    """The store below `folder`/workspace, its source file and model beside it."""
    store = Store(folder / "workspace")
    source, model = folder / "hospital.csv", folder / "model"
    source.write_text("a,b\n1,2\n")
    model.mkdir()
    (model / "config.json").write_text("{}")
    stays = pl.DataFrame({"stay_id": STAYS, "patient_id": ["patient-00001", "patient-00002"], "label": [0, 1]})
    made = {"cohort": put(store, "cohort", {"stays.parquet": stays, "meta.json": "{}"},
                          sources={"hospital.csv": file_digest(source)})}
    made["patients"] = put(store, "patients", {"patients.parquet": pl.DataFrame(
        {"stay_id": STAYS, "evidence": [EVIDENCE, "Lactate: 1.0"]})}, {"cohort": made["cohort"]})
    entry = {"name": "tiny", "folder": str(model), "files": {"config.json": file_digest(model / "config.json")}}
    made["base"] = put(store, "base", {"model.json": json.dumps(entry)},
                       sources={"tiny/config.json": file_digest(model / "config.json")})
    weights = save({"a": np.zeros(4, dtype=np.float32)})
    made["rl"] = put(store, "rl", {"adapter/adapter_model.safetensors": weights, "adapter/adapter_config.json": "{}",
                                   "rollouts.parquet": pl.DataFrame({"stay_id": STAYS, "text": [ANSWER, "x"]})},
                     {"base": made["base"], "patients": made["patients"]})
    answered = pl.DataFrame({"arm": ["stage1+2"] * 2, "stay_id": STAYS, "text": [ANSWER, "no"], "parsed": [True, False],
                             "probability": [0.75, 0.5], "token_probability": [0.7, 0.5]})
    made["verdicts"] = put(store, "verdicts", {"verdicts.parquet": answered},
                           {"base": made["base"], "patients": made["patients"], "adapter": made["rl"]}, "stage1+2")
    made["baselines"] = put(store, "baselines", {"verdicts.parquet": answered.with_columns(arm=pl.lit("expert")),
                                                 "notes.json": "{}"}, {"cohort": made["cohort"]})
    made["report"] = put(store, "report", {"report.html": PAGE, "report_to_share.html": SHARED, "table.json": "[]",
                                           "report.md": "AUROC 81.2",
                                           "table.parquet": pl.DataFrame({"auroc": [0.8]})},
                         {"verdicts.stage1+2": made["verdicts"], "baselines": made["baselines"], "rl": made["rl"]})
    return store, made
