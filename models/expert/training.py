"""Training of the expert: several seeds, early stopping, and a stated rule for the winner.

`python -m models.expert.training --job JOB.json` with {"cohort": folder, "out": folder, "section": values of
configs.schema.Expert, "seed": int}. In: the cohort folder. Out, in `out`:

    seed-K/{model.safetensors, history.json, done.json}   one expert for each of section.seeds seeds, K = 0, 1, ...
    expert.safetensors                                    the winner
    expert.json                                           sizes, catalogue, features, scaling, selection, all metrics
    progress.jsonl, done.json                             progress; a summary, written last

A seed is trained with `seed + K`; a finished one (its done.json lies there and tells of the same data and settings) is
not trained again. The loss is the cross-entropy at the last visit, where the prediction is made. Training stops after
`patience` epochs without a lower validation loss and keeps the epoch with the lowest. The winner is the seed with the
lowest validation loss, the first of equals. The test split is measured for each seed and takes no part in any choice.
An epoch whose validation loss is no number is never kept; in history.json what is no number is null.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from configs.schema import Expert
from contracts.cohort_files import FIRST
from contracts.errors import ConfigError, ModelError
from models.expert.architectures import Model, make_model
from models.expert.batches import Batch, Stays, read_stays
from models.expert.loading import DESCRIPTION, WEIGHTS, load_weights, read_at, save_weights
from models.job import DONE, Job, job, write_json
from models.progress import ProgressLog

RULE = "lowest validation loss over seeds, the first of equals; the test split takes no part"
NEEDS = ("cohort", "out", "section", "seed")
LOWER = "expert.batch_size or expert.hidden"
MEASURED = ("validation", "test")
GRADIENT_NORM = 5.0  # gradients are clipped here: a guard against a diverging seed, rarely reached

OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Trained:
    """One trained seed.

    Attributes:
        model: with the weights of the best epoch, in evaluation mode.
        epoch: the best epoch, from 1.
        loss: its validation loss.
        history: metrics of each epoch; NaN where a loss was no number.
    """

    model: Model
    epoch: int
    loss: float
    history: list[dict[str, float]]


def train(values: Job) -> dict[str, Any]:
    """Runs the whole job; returns the content of done.json."""
    section, cohort, out = section_of(values), Path(values["cohort"]), Path(values["out"])
    stays, first_days = read_stays(cohort), read_stays(cohort, FIRST)
    splits = {name: stays.split(name) for name in ("train", *MEASURED)}
    firsts = {name: first_days.split(name) for name in MEASURED}
    log = ProgressLog(out / "progress.jsonl", section.seeds * section.epochs)
    recipe = fingerprint(stays, first_days, section, int(values["seed"]))
    rows = []
    for number in range(section.seeds):
        folder, first = out / f"seed-{number}", number * section.epochs
        if finished(folder, recipe) is None:
            trained = fit(splits["train"], splits["validation"], section, int(values["seed"]) + number,
                          lambda epoch, metrics, first=first, number=number: log.log(  # type: ignore[misc]
                              first + epoch, seed=number, **metrics))
            metrics = metrics_of(trained.model, splits, firsts)
            _store(folder, trained, metrics, recipe, number, int(values["seed"]) + number)
        log.log(first + section.epochs, seed=number)
        rows.append(json.loads((folder / DONE).read_text(encoding="utf-8")))
    return _conclude(out, rows, stays, section)


def section_of(values: Job) -> Expert:
    """The expert's settings in a job.

    Raises:
        ConfigError: they break the schema.
    """
    try:
        return Expert.model_validate(values["section"])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in error.errors())
        raise ConfigError(f"expert section: {problems}", "each setting stays in its range",
                          "`eag-rl config show --all` lists every setting and its range") from error


def fit(train_batch: Batch, validation: Batch, section: Expert, seed: int, on_epoch: OnEpoch | None = None) -> Trained:
    """Trains one expert.

    Args:
        train_batch: training stays.
        validation: stays on which it stops.
        seed: of weights, order and dropout; the global generator is left as it was.
        on_epoch: called with the number of the epoch, from 1, and its metrics.

    Raises:
        ModelError: no epoch has a finite validation loss.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(train_batch.values.shape[2], section)
        optimiser = torch.optim.AdamW(model.parameters(), lr=section.lr, weight_decay=section.weight_decay)
        best, best_loss, weights, history = 0, float("inf"), model.state_dict(), []
        for epoch in range(1, section.epochs + 1):
            losses = [step(model, optimiser, train_batch.select(rows), section)
                      for rows in torch.randperm(len(train_batch)).split(section.batch_size)]
            metrics = {"train_loss": statistics.fmean(losses), **measure(model, validation, "validation")}
            history.append({"epoch": float(epoch), **metrics})
            if on_epoch is not None:
                on_epoch(epoch, metrics)
            if metrics["validation_loss"] < best_loss:  # never true of a loss that is not a number
                best, best_loss = epoch, metrics["validation_loss"]
                weights = {name: value.clone() for name, value in model.state_dict().items()}
            elif epoch - best >= section.patience:
                break
    if not best:
        raise ModelError(f"the validation loss of seed {seed} is not a number in any of {len(history)} epochs",
                         "training converges", "lower expert.lr")
    model.load_state_dict(weights)
    return Trained(model.eval(), best, best_loss, history)


def step(model: Model, optimiser: torch.optim.Optimizer, batch: Batch, section: Expert) -> float:
    """One optimiser step on a batch; returns its loss."""
    model.train()
    reading = model(batch, batch.last.unsqueeze(1), decorrelate=section.decov > 0)
    loss = binary_cross_entropy_with_logits(reading.logits[:, 0], batch.labels) + section.decov * reading.decov
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimiser.step()
    return loss.item()


def measure(model: Model, batch: Batch, name: str) -> dict[str, float]:
    """Loss, AUROC and AUPRC at the last visit, named `<name>_...`; a loss of NaN alone where a logit is not finite."""
    logits = _logits(model, batch)
    if not bool(torch.isfinite(logits).all()):
        return {f"{name}_loss": float("nan")}
    return {f"{name}_loss": float(binary_cross_entropy_with_logits(logits, batch.labels)),
            f"{name}_auroc": _rank(roc_auc_score, batch.labels, logits),
            f"{name}_auprc": _rank(average_precision_score, batch.labels, logits)}


def metrics_of(model: Model, splits: Mapping[str, Batch], firsts: Mapping[str, Batch]) -> dict[str, float]:
    """All metrics of a trained model: `measure` of the splits of `MEASURED`, and the AUROC on the first day.

    Args:
        splits: stays with all their visits. firsts: the same stays with their first day alone.

    Raises:
        ModelError: a logit is not finite.
    """
    metrics: dict[str, float] = {}
    for name in MEASURED:
        metrics |= measure(model, splits[name], name)
        first = _logits(model, firsts[name])
        if not math.isfinite(metrics[f"{name}_loss"]) or not bool(torch.isfinite(first).all()):
            raise ModelError(f"the trained expert gives stays of split {name!r} a risk that is not a number",
                             "training converges", "lower expert.lr")
        metrics[f"{name}_first_auroc"] = _rank(roc_auc_score, firsts[name].labels, first)
    return metrics


def _logits(model: Model, batch: Batch) -> Tensor:
    """(B,): at the last visit that each stay has."""
    return read_at(model, batch, batch.last.unsqueeze(1)).logits[:, 0]


def _rank(score: Callable[[Any, Any], float], labels: Tensor, logits: Tensor) -> float:
    return float(score(labels.numpy(), logits.double().numpy()))


def fingerprint(stays: Stays, first_days: Stays, section: Expert, seed: int) -> str:
    """sha256 over the data as the model sees them, the settings and the seed: what a finished seed depends on.

    The number of seeds does not enter (more may be added later), nor do settings that act after the training.
    """
    settings = section.model_dump(mode="json", exclude={"seeds", "permutations"})
    digest = hashlib.sha256(json.dumps([settings, seed, stays.features, stays.splits], sort_keys=True).encode())
    for batch in (stays.batch, first_days.batch):
        for tensor in (batch.values, batch.mask, batch.days, batch.static, batch.labels):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def finished(folder: Path, recipe: str) -> dict[str, Any] | None:
    """What a finished seed of this recipe reported; None where it has to be trained."""
    try:
        row: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return row if row.get("recipe") == recipe and (folder / "model.safetensors").is_file() else None


def _store(folder: Path, trained: Trained, metrics: dict[str, float], recipe: str, number: int, seed: int) -> None:
    """Writes one seed's files, done.json last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DONE).unlink(missing_ok=True)
    save_weights(trained.model, folder / "model.safetensors")
    # JSON has no NaN.
    write_json(folder / "history.json", [{name: value if math.isfinite(value) else None for name, value in row.items()}
                                         for row in trained.history])
    write_json(folder / DONE, {"number": number, "seed": seed, "epoch": trained.epoch, "recipe": recipe,
                               "epochs": len(trained.history), "metrics": metrics})


def _conclude(out: Path, rows: list[dict[str, Any]], stays: Stays, section: Expert) -> dict[str, Any]:
    """Chooses the winner by RULE; writes it, its description and the summary."""
    winner = min(rows, key=lambda row: (row["metrics"]["validation_loss"], row["number"]))
    chosen = out / f"seed-{winner['number']}" / "model.safetensors"
    save_weights(load_weights(chosen, len(stays.features), section), out / WEIGHTS)
    spread = {f"{name}_{word}": value for name in ("test_auroc", "test_auprc", "test_first_auroc", "validation_loss")
              for word, value in _mean_and_sd([row["metrics"][name] for row in rows]).items()}
    metrics = {**winner["metrics"], **spread}
    table = [{key: row[key] for key in ("number", "seed", "epoch", "epochs", "metrics")} for row in rows]
    write_json(out / DESCRIPTION, {
        "architecture": section.architecture, "catalogue": stays.catalogue, "features": list(stays.features),
        "section": section.model_dump(mode="json"), "scaling": stays.scaling, "metrics": metrics,
        "selection": {"rule": RULE, "winner": winner["number"], "table": table}})
    summary = {"winner": winner["number"], "rule": RULE, "metrics": metrics}
    write_json(out / DONE, summary)
    return summary


def _mean_and_sd(numbers: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(numbers), "sd": statistics.stdev(numbers) if len(numbers) > 1 else 0.0}


if __name__ == "__main__":
    job(train, NEEDS, LOWER)
