"""Training of the expert: learns, resumes, chooses by validation loss, refuses bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from configs.schema import Expert
from contracts.cohort_files import FILLED, FIRST
from contracts.errors import ConfigError, DataError, ModelError
from contracts.features import STATIC
from contracts.frames import READINGS, top_features
from models.expert import training
from models.expert.attention import attend, readings_of
from models.expert.batches import Stays, read_stays
from models.expert.loading import load_expert, read, read_at
from models.progress import read as read_progress
from support.expert_cohort import PLANTED, random_batch, write_cohort

pytestmark = pytest.mark.slow

SECTION = Expert(hidden=8, heads=2, time_rank=3, feed_forward=12, dropout=0.1, lr=1e-2, batch_size=32, epochs=25,
                 patience=8, seeds=2, permutations=2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("expert")
    write_cohort(folder / "cohort")
    values = {"cohort": str(folder / "cohort"), "out": str(folder / "out"), "seed": 5,
              "section": SECTION.model_dump(mode="json")}
    training.train(values)
    return values


@pytest.fixture(scope="module")
def attended(job: dict[str, Any]) -> Path:
    out = Path(job["out"]).parent / "attention"
    attend({**job, "expert": job["out"], "out": str(out)})
    return out


def _done(folder: str | Path) -> dict[str, Any]:
    return json.loads((Path(folder) / "done.json").read_text())


def test_it_learns_a_planted_risk(job: dict[str, Any]) -> None:
    metrics = _done(job["out"])["metrics"]
    assert metrics["test_auroc"] > 0.85 and metrics["validation_auroc"] > 0.85


def test_the_winner_has_the_lowest_validation_loss_whatever_the_test_says(job: dict[str, Any], tmp_path: Path) -> None:
    described = json.loads((Path(job["out"]) / "expert.json").read_text())
    table = described["selection"]["table"]
    losses = [row["metrics"]["validation_loss"] for row in table]
    assert described["selection"]["winner"] == losses.index(min(losses))
    assert len(table) == 2 and {"test_auroc", "test_auprc", "validation_auroc"} <= set(table[0]["metrics"])
    rows = [{"number": number, "seed": number, "epoch": 1, "epochs": 1,
             "metrics": {**table[0]["metrics"], "validation_loss": loss, "test_auroc": test}}
            for number, (loss, test) in enumerate([(0.5, 0.99), (0.2, 0.6), (0.2, 0.9)])]
    stays = read_stays(Path(job["cohort"]))
    for number in range(3):
        (tmp_path / f"seed-{number}").mkdir()
        weights = (Path(job["out"]) / "seed-0" / "model.safetensors").read_bytes()
        (tmp_path / f"seed-{number}" / "model.safetensors").write_bytes(weights)
    assert training._conclude(tmp_path, rows, stays, SECTION)["winner"] == 1


def test_progress_is_reported_for_every_epoch_and_ends_at_the_total(job: dict[str, Any]) -> None:
    steps = read_progress(Path(job["out"]) / "progress.jsonl")
    assert steps[-1].step == steps[-1].total == SECTION.seeds * SECTION.epochs
    assert "validation_loss" in steps[0].metrics


def test_a_rerun_trains_only_the_seed_that_was_killed(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path(job["out"])
    before = (out / "seed-1" / "model.safetensors").read_bytes()
    summary = (out / "done.json").read_text()
    (out / "seed-1" / "done.json").unlink()
    (out / "seed-1" / "model.safetensors").write_bytes(b"half a fi")
    seeds = []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *given: seeds.append(given[3]) or fit(*given))
    training.train(job)
    assert seeds == [job["seed"] + 1]
    assert (out / "seed-1" / "model.safetensors").read_bytes() == before
    assert (out / "done.json").read_text() == summary


def test_other_settings_or_data_do_not_reuse_a_finished_seed(job: dict[str, Any]) -> None:
    cohort, seed_folder = Path(job["cohort"]), Path(job["out"]) / "seed-0"
    stays, first = read_stays(cohort), read_stays(cohort, FIRST)
    same = training.fingerprint(stays, first, SECTION, 5)
    assert training.finished(seed_folder, same) is not None
    slower = SECTION.model_copy(update={"lr": 1e-5})
    assert training.finished(seed_folder, training.fingerprint(stays, first, slower, 5)) is None
    assert training.finished(seed_folder, training.fingerprint(stays, stays, SECTION, 5)) is None
    stays.batch.values[0, 0, 0] += 1.0
    assert training.finished(seed_folder, training.fingerprint(stays, first, SECTION, 5)) is None


def test_training_stops_when_validation_no_longer_improves(job: dict[str, Any]) -> None:
    stays = read_stays(Path(job["cohort"]))
    section = SECTION.model_copy(update={"epochs": 400, "patience": 3, "lr": 0.03})
    trained = training.fit(stays.split("train"), stays.split("validation"), section, 0)
    losses = [row["validation_loss"] for row in trained.history]
    assert len(losses) < 400 and len(losses) == trained.epoch + 3
    assert trained.loss == min(losses) == losses[trained.epoch - 1]
    again = training.measure(trained.model, stays.split("validation"), "validation")["validation_loss"]
    assert again == pytest.approx(trained.loss, abs=1e-6)


def test_training_with_decov_lowers_the_penalty(job: dict[str, Any]) -> None:
    batch = read_stays(Path(job["cohort"])).split("train")
    penalties = []
    for weight in (0.0, 1000.0):
        torch.manual_seed(0)
        model = training.make_model(batch.values.shape[2], SECTION)
        section = SECTION.model_copy(update={"decov": weight})
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(20):
            training.step(model, optimiser, batch, section)
        with torch.no_grad():
            penalties.append(model.eval()(batch, batch.last.unsqueeze(1), decorrelate=True).decov.item())
    assert penalties[1] < 0.5 * penalties[0]


def test_a_diverging_training_says_what_to_lower(job: dict[str, Any]) -> None:
    stays = read_stays(Path(job["cohort"]))
    batch = stays.split("train")
    batch.values[:] = float("inf")
    with pytest.raises(ModelError, match=r"expert\.lr"):
        training.fit(batch, stays.split("validation"), SECTION.model_copy(update={"epochs": 1}), 0)


def test_readings_keep_their_contract_and_are_those_of_the_loaded_winner(job: dict[str, Any], attended: Path) -> None:
    readings = READINGS.check(pl.read_parquet(attended / "readings.parquet"))
    stays, expert = read_stays(Path(job["cohort"])), load_expert(Path(job["out"]))
    risk, attention = read(expert, stays.batch)
    one = readings.filter(pl.col("stay_id") == stays.stay_ids[4])
    assert one["feature"].to_list() == [*expert.features, STATIC]
    assert one["risk"][0] == pytest.approx(risk[4].item(), abs=1e-6)
    assert one["attention"].to_list() == pytest.approx(attention[4].tolist(), abs=1e-6)
    sums = readings.group_by("stay_id").agg(pl.col("attention").sum())["attention"].to_list()
    assert sums == pytest.approx([1.0] * 150)
    assert sorted(one["rank"]) == list(range(1, 19)) and one.sort("attention")["rank"][-1] == 1


def test_the_planted_features_are_found(attended: Path) -> None:
    top = top_features(pl.read_parquet(attended / "readings.parquet"), 5)
    found = sum(PLANTED[0] in names for names in top.values()) / len(top)
    health = json.loads((attended / "health.json").read_text())
    assert found > 2 * 5 / 18
    assert health["truth"]["jaccard_at_5"] > health["truth"]["chance_jaccard_at_5"]
    assert health["permutation"]["jaccard_at_5"] > health["permutation"]["chance_jaccard_at_5"]
    assert health["stability"]["seeds"] == 2


def test_risks_and_visits_attention_cover_what_they_promise(job: dict[str, Any], attended: Path) -> None:
    risks, readings = (pl.read_parquet(attended / name) for name in ("risks.parquet", "readings.parquet"))
    both = risks.join(readings.group_by("stay_id").agg(pl.col("risk").first()), on="stay_id")
    assert both.height == 150 and both["last"].to_list() == pytest.approx(both["risk"].to_list(), abs=1e-6)
    by_visit = pl.read_parquet(attended / "visits_attention.parquet")
    sums = by_visit.group_by("stay_id", "visit").agg(pl.col("attention").sum())["attention"].to_list()
    assert sums == pytest.approx([1.0] * len(sums), abs=1e-5)
    weights = by_visit.drop_nulls("weight").group_by("stay_id", "feature").agg(pl.col("weight").sum())["weight"]
    assert weights.to_list() == pytest.approx([1.0] * len(weights), abs=1e-5)
    tests = {stay for stay, split in zip(risks["stay_id"], risks["split"], strict=True) if split == "test"}
    assert set(by_visit["stay_id"]) == tests and read_stays(Path(job["cohort"])).splits.count("test") == len(tests)


def test_the_first_risk_of_a_stay_without_summary_is_that_at_its_first_visit(job: dict[str, Any], attended: Path
                                                                             ) -> None:
    stays, expert = read_stays(Path(job["cohort"])), load_expert(Path(job["out"]))
    at_first = read_at(expert.model, stays.batch, torch.zeros(150, 1, dtype=torch.int64)).logits[:, 0]
    risks = pl.read_parquet(attended / "risks.parquet")
    assert risks["first"].to_list() == pytest.approx(torch.sigmoid(at_first).tolist(), abs=1e-6)
    labels = pl.read_parquet(Path(job["cohort"]) / "stays.parquet").filter(pl.col("split") == "test")
    both = labels.join(risks, on="stay_id")
    assert _done(job["out"])["metrics"]["test_first_auroc"] == pytest.approx(
        roc_auc_score(both["label"].to_numpy(), both["first"].to_numpy()))


def test_the_first_risk_is_asked_about_the_first_day_and_not_about_a_summary(job: dict[str, Any], attended: Path,
                                                                             tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(job["cohort"], cohort)
    begun = pl.col("visit") == 0
    filled = pl.read_parquet(cohort / "filled.parquet")
    filled.with_columns(pl.when(begun).then(-3.0).otherwise(pl.col(name)).alias(name) for name in PLANTED).with_columns(
        begun.alias("is_summary")).write_parquet(cohort / "filled.parquet")
    attend({**job, "cohort": str(cohort), "expert": job["out"], "out": str(tmp_path / "out")})
    before, after = (pl.read_parquet(folder / "risks.parquet") for folder in (attended, tmp_path / "out"))
    assert before["first"].equals(after["first"]) and not before["last"].equals(after["last"])


@pytest.mark.parametrize("architecture", ["concare", "gru"])
def test_a_feature_that_was_never_measured_is_named_by_no_expert(architecture: str) -> None:
    section = SECTION.model_copy(update={"architecture": architecture})
    torch.manual_seed(0)
    batch = random_batch(stays=6)
    batch.mask[0], batch.mask[1, :, 1:] = False, False
    names = ("a", "b", "c", "d")
    stays = Stays(batch, tuple("uvwxyz"), ("test",) * 6, names, "made up", {})
    named = top_features(readings_of(stays, *read(training.make_model(4, section).eval(), batch)), 5)
    assert named["u"] == [STATIC] and set(named["v"]) <= {"a", STATIC} and len(named) == 6
    seen = batch.mask.any(dim=1)
    assert all(seen[row, names.index(name)] for row, stay in enumerate("uvwxyz") for name in named[stay]
               if name != STATIC)


def test_an_epoch_without_a_loss_is_written_as_null_and_never_kept(job: dict[str, Any], tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    measure, calls = training.measure, []

    def diverging(*given: Any) -> dict[str, float]:
        calls.append(given)
        lost = given[2] == "validation" and len(calls) in (1, 3)
        return {"validation_loss": float("nan")} if lost else measure(*given)

    monkeypatch.setattr(training, "measure", diverging)
    section = SECTION.model_copy(update={"epochs": 4, "seeds": 1})
    training.train({**job, "out": str(tmp_path), "section": section.model_dump(mode="json")})
    history = json.loads((tmp_path / "seed-0" / "history.json").read_text())
    losses = [row["validation_loss"] for row in history]
    assert [loss is None for loss in losses] == [True, False, True, False]
    epoch = _done(tmp_path / "seed-0")["epoch"]
    assert losses[epoch - 1] == min(loss for loss in losses if loss is not None)


def test_an_expert_without_finite_risks_on_test_says_so(job: dict[str, Any]) -> None:
    stays, first = (read_stays(Path(job["cohort"]), name) for name in (FILLED, FIRST))
    model = load_expert(Path(job["out"])).model
    splits, firsts = ({name: one.split(name) for name in training.MEASURED} for one in (stays, first))
    firsts["test"].static[0] = float("nan")
    with pytest.raises(ModelError, match="'test' a risk that is not a number"):
        training.metrics_of(model, splits, firsts)


def test_a_damaged_expert_is_refused(job: dict[str, Any], tmp_path: Path) -> None:
    for name in ("expert.json", "expert.safetensors"):
        (tmp_path / name).write_bytes((Path(job["out"]) / name).read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read"):
        load_expert(tmp_path)
    (tmp_path / "expert.json").write_bytes((Path(job["out"]) / "expert.json").read_bytes())
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_expert(tmp_path)


def test_bad_settings_and_labels_all_alike_are_refused(job: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hidden"):
        training.train({**job, "section": {"hidden": 3}})
    with pytest.raises(DataError, match="labels"):
        training.train({**job, "cohort": str(write_cohort(tmp_path / "alike", stays=30, label_of_all=0)),
                        "out": str(tmp_path / "out")})


def test_a_failing_job_ends_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"cohort": str(tmp_path / "none"), "out": str(tmp_path), "section": {}, "seed": 1}))
    child = subprocess.run([sys.executable, "-m", "models.expert.training", "--job", str(path)], capture_output=True,
                           text=True, check=False, timeout=300, cwd=Path(__file__).parents[3])
    assert child.returncode == 2
    line = child.stderr.strip().splitlines()[-1]
    assert line.startswith("EAGRL_ERROR ") and "Traceback" not in child.stderr
    assert set(json.loads(line.removeprefix("EAGRL_ERROR "))) == {"error", "value", "rule", "next"}
