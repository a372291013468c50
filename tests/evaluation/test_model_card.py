from pathlib import Path

import polars as pl
import pytest
from huggingface_hub import ModelCard

from evaluation import tables
from evaluation.baselines import judge_expert
from evaluation.descent import Link
from evaluation.model_card import card
from support.judged import readings_of, stays_of, verdicts_of

FACTS = {"base_model": "somebody/some-model", "source": "A source: with | signs.", "splits": "Splits: 3 patients.",
         "outcome": "death in hospital", "outcome_definition": "Death.", "missing": "Carried forward.",
         "reading": "Twice.", "limits": "Few.", "findings": "Nothing.", "licence": "A data use agreement.",
         "use": "Research on methods only."}
TRAIL = [Link("cohort-1", "cohort", (), "9f" * 32, "c" * 40, "r", ())]


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    stays = stays_of(120)
    verdicts = pl.concat([verdicts_of("decomposition", stays, 1.0), verdicts_of("stage1", stays, 2.0),
                          judge_expert(readings_of(stays), stays)])
    return tables.results(verdicts, 10, 1, interval_bootstraps=20)


def _card(table: pl.DataFrame, base: str | None = "somebody/some-model") -> str:
    return card("stage1", "a prompt", "trial", base, "tjh", table, FACTS, [("policy.lora.rank", "64")], TRAIL)


def test_the_hub_reads_the_card_and_its_figures(table: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(_card(table), encoding="utf-8")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.library_name, data.license) == ("somebody/some-model", "peft", "other")
    assert "research-only" in data.tags and len(data.eval_results) == 6
    row = table.filter((pl.col("arm") == "stage1") & (pl.col("reading") == "tokens")).row(0, named=True)
    found = {one.metric_name: one.metric_value for one in data.eval_results}
    name = f"AUROC, risk tokens [95 % {row['auroc_low']:.3f}, {row['auroc_high']:.3f}]"
    assert found[name] == pytest.approx(row["auroc_point"], abs=1e-4)


def test_a_model_of_a_folder_names_no_base_model(table: pl.DataFrame) -> None:
    data = ModelCard(_card(table, None)).data
    assert data.base_model is None and data.library_name == "peft"


def test_the_card_warns_of_an_adapter_that_reasons_the_same_of_everybody(table: pl.DataFrame) -> None:
    limits = ModelCard(_card(table.with_columns(same_reasoning=pl.lit(0.97)))).text.partition("## Limits")[2]
    assert limits.strip().startswith("stage1 reasons in the same words in 97 % of its answers") and "Few." in limits
    assert "same words" not in _card(table)


def test_the_card_tells_use_data_training_results_limits_licence_and_lineage(table: pl.DataFrame) -> None:
    text = ModelCard(_card(table)).text
    for words in ("Research only", "Not a medical device", "| policy.lora.rank | 64 |", "Splits: 3 patients.", "Few.",
                  "A data use agreement.", "cohort-1 (9f9f9f9f9f9f), commit cccccccccccc",
                  "Not intended: any clinical use"):
        assert words in text
    assert not any(stay in text for stay in stays_of(120)["stay_id"])
    assert " expert " not in text
