"""The model card of an adapter in the Hugging Face format: YAML front matter for machines, Markdown for people.

In go facts of the study, rows of the result table and the settings of the training; out comes the text of README.md. No
patient is in it: the data are described by counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import yaml

from evaluation import variety, wording
from evaluation.descent import Link, named, short

_METRICS = {"auroc": ("roc_auc", "AUROC"), "auprc": ("average_precision", "AUPRC"), "brier": ("brier_score", "Brier")}


def card(arm: str, how: str, study: str, base: str | None, source: str, table: pl.DataFrame,
         facts: Mapping[str, str | None], settings: Sequence[tuple[str, str]], trail: Sequence[Link]) -> str:
    """README.md of one arm's adapter.

    Args:
        how: how the arm is made and asked.
        base: the base model's name on the Hugging Face hub, None for a folder.
        source: of the cohort.
        table: of `tables.results`, of this adapter's own verdicts: where the arm was trained with several seeds, the
            report's table holds means that no adapter has reached.
        facts: of `study_facts.facts`.
        settings: of its training, name and value.
        trail: the artifacts that its verdicts rest on, sources first.
    """
    rows = table.filter(pl.col("arm") == arm).to_dicts()
    parts = [_front(arm, study, base, source, rows), f"# {study}: {arm}", f"Low-rank adapter (LoRA) of "
             f"{facts['base_model']}: {how}. Made by EAG-RL (arXiv 2508.13579 in a free reimplementation).",
             "> **Research only.** Not a medical device; no output may guide the care of a patient.",
             "## Use", _use(facts), "## Data", f"{facts['source']} {facts['splits']} Outcome: "
             f"{facts['outcome_definition']} {facts['missing']} No row of any patient is in this card.",
             "## Training", wording.markdown((["Setting", "Value"], [list(pair) for pair in settings])),
             "## Results on the held-out test split", _results(rows), str(facts["reading"]),
             "## Limits", " ".join([*variety.warning(table.filter(pl.col("arm") == arm)), str(facts["limits"]),
                                    str(facts["findings"])]), "## Licence", _licence(facts),
             "## Lineage", "\n".join(_origin(link) for link in trail)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _front(arm: str, study: str, base: str | None, source: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The front matter, model-index included (one metric for each measure and reading)."""
    metrics = [{"type": kind, "value": round(float(row[f"{name}_point"]), 4),
                "name": f"{title}, risk {row['reading']} [95 % {row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"}
               for row in rows for name, (kind, title) in _METRICS.items()]
    values: dict[str, Any] = {"library_name": "peft", "pipeline_tag": "text-generation", "language": ["en"],
                              "license": "other", "license_name": "see-section-licence",
                              "tags": ["lora", "medical", "ehr", "research-only", "eag-rl", source]}
    if base:
        values["base_model"] = base
    result = {"task": {"type": "text-generation", "name": "Risk prediction from hospital records"},
              "dataset": {"type": source, "name": f"{source}, test split of study {study}"}, "metrics": metrics}
    values["model-index"] = [{"name": f"{study}-{arm}", "results": [result]}]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _use(facts: Mapping[str, str | None]) -> str:
    return (f"Intended: {facts['use']} Predicts {facts['outcome']}; meant for the prompts of the study it comes from "
            "and for records prepared as there. Not intended: any clinical use, other "
            "outcomes, other populations, free text.\n\nTo load it: `peft.PeftModel.from_pretrained(base, folder)`; "
            "within this project `eag-rl predict` does it, with the prompt and the reading of the risk.")


def _results(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["Risk", "Test stays", "Outcome 1", "Readable", *(title for _, title in _METRICS.values())]
    return wording.markdown((heads, [[row["reading"], str(row["n"]), str(row["positives"]),
                                      f"{100 * row['parse_rate']:.0f} %", *(_interval(row, name) for name in _METRICS)]
                                     for row in rows])) + "\nValue on all test stays with its 95 % bootstrap interval."


def _interval(row: Mapping[str, Any], name: str) -> str:
    point, low, high = (row[f"{name}_{what}"] for what in ("point", "low", "high"))
    return f"{point:.3f} [{low:.3f}, {high:.3f}]"


def _licence(facts: Mapping[str, str | None]) -> str:
    return (f"The adapter inherits the conditions of {facts['base_model']} and of the data. {facts['licence']} A model "
            "trained on patients can give away what it has read: check before sharing it.")


def _origin(link: Link) -> str:
    commit = f", commit {short(link.commit)}" if link.commit else ""
    return f"- {link.kind} {named(link)}{commit}"
