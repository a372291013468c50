"""Verdicts: asks a language model about each test patient and reads the risk twice.

In go patients and the model's door, out comes one row a patient (contract VERDICTS and the columns of `EXTRAS`). Each
answer is on disk as soon as it is finished, under a key of everything that decides it, so that a second call asks only
for what is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from configs.schema import Evaluation
from contracts.errors import DataError, StorageError
from contracts.frames import VERDICTS
from contracts.generation import Generate, Generation, RenderChat
from contracts.patients import Patient
from evaluation.token_entropy import TOKENS, bounds, placed
from prompts import grammar, templates
from prompts.token_risk import TOP_LOGPROBS, risk_of_tokens

UNDECIDED = 0.5
_RECORD = 2  # version of an answer's file
_DIGIT = re.compile(r"[0-9]")

# Columns beyond the contract: whether the grammar was kept whole, whether the answer ran into its token limit, and how
# `token_probability` was read: "tokens", "stated" (the tokens did not tell: the stated number stands in), "none"
# (unparsable) or "model" (an arm without language); where each token stands and how unsure the model was there (null
# for an arm without language).
EXTRAS: dict[str, Any] = {"well_formed": pl.Boolean, "truncated": pl.Boolean, "reading": pl.String,
                          "token_entropies": TOKENS}
SCHEMA: dict[str, Any] = {**VERDICTS.dtypes, **EXTRAS}


async def judge(arm: str, style: str, patients: Sequence[Patient], generate: Generate, render: RenderChat, model: str,
                section: Evaluation, outcome: str, count: int, seed: int, out: Path,
                on_done: Callable[[int, int], None] | None = None) -> pl.DataFrame:
    """Asks one arm for every patient, all at once (the door limits what is in flight), and reads the answers.

    Args:
        arm: its name, for the rows.
        style: of the prompt and of the grammar: vanilla, think or decomposition.
        patients: of the test split, each stay once.
        model: base model's or adapter's name on the server; an adapter's name must change with its content.
        section: temperature (0: greedy) and length of the answers.
        outcome: what is predicted, for the prompt.
        count: important features that the prompt asks for.
        out: folder for the finished answers; several arms may share it.
        on_done: called with (answers finished, answers in all) after each.

    Returns:
        VERDICTS and `EXTRAS`, one row a patient, in the order given. An answer without a number counts as not parsed
        and has risk 0.5 in both readings. `features` are spelt as the model wrote them.

    Raises:
        ConfigError: the style is unknown.
        DataError: no patients, or a stay twice.
        PromptTooLongError, ServerError: from the door; the answers already finished stay on disk.
        StorageError: an answer cannot be written.
    """
    _check(patients)
    folder = _folder(out)
    done = 0

    async def answered(patient: Patient) -> _Answer:
        nonlocal done
        prompt = render(templates.messages(patient.evidence, style, outcome, count))
        path = folder / f"{_key(prompt, style, model, section, seed)}.json"
        answer = _read(path)
        if answer is None:
            found = await generate(prompt, model=model, max_tokens=section.completion_tokens,
                                   temperature=section.temperature, seed=seed, top_logprobs=TOP_LOGPROBS)
            answer = _Answer(_slim(found[0]), bounds(found[0]))
            _write(path, answer)
        done += 1
        if on_done is not None:
            on_done(done, len(patients))
        return answer

    answers = await _all([asyncio.ensure_future(answered(patient)) for patient in patients])
    rows = [verdict(arm, style, patient, answer.generation, answer.entropies)
            for patient, answer in zip(patients, answers, strict=True)]
    return VERDICTS.check(pl.DataFrame(rows, schema=SCHEMA))


@dataclass(frozen=True)
class _Answer:
    """What is kept of an answer: itself, with the alternatives at digits, and the entropy bound at each token."""

    generation: Generation
    entropies: tuple[float, ...]


def verdict(arm: str, style: str, patient: Patient, answer: Generation, entropies: Sequence[float] = ()
            ) -> dict[str, Any]:
    """One row of VERDICTS and `EXTRAS`: the answer parsed, and its risk read both ways.

    Args:
        entropies: bounds at its tokens (`token_entropy.bounds`).
    """
    parsed = grammar.parse(answer.text, style)
    stated, tokens, reading = UNDECIDED, UNDECIDED, "none"
    if parsed.probability is not None:
        stated = min(max(parsed.probability, 0.0), 1.0)
        read = risk_of_tokens(answer, parsed)
        tokens, reading = (stated, "stated") if read is None else (read, "tokens")
    return {"arm": arm, "stay_id": patient.stay_id, "label": patient.label, "text": answer.text,
            "parsed": parsed.probability is not None, "probability": stated, "token_probability": tokens,
            "features": list(parsed.features), "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens, "well_formed": parsed.well_formed,
            "truncated": answer.finish_reason == "length", "reading": reading,
            "token_entropies": placed(answer, entropies)}


def _check(patients: Sequence[Patient]) -> None:
    if not patients:
        raise DataError("no test patients to judge", "the test split holds at least one stay",
                        "check the cohort's splits and evaluation.stays")
    repeated = len(patients) - len({patient.stay_id for patient in patients})
    if repeated:
        raise DataError(f"{repeated} test stays stand twice", "each stay is judged once", "recompute the cohort")


async def _all(tasks: Sequence[asyncio.Future[_Answer]]) -> list[_Answer]:
    """Waits for all; the first failure cancels the rest, waits until they have ended, and is raised."""
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _key(prompt: Sequence[int], style: str, model: str, section: Evaluation, seed: int) -> str:
    """SHA-256 over all that decides an answer; the prompt's token ids hold the evidence and the chat template."""
    facts = [_RECORD, templates.VERSION, style, model, section.temperature, section.completion_tokens, seed,
             TOP_LOGPROBS, list(prompt)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _slim(answer: Generation) -> Generation:
    """Keeps the alternatives only where they can matter, at tokens with a digit: a twentieth of the disk."""
    top = tuple(dict(known) if _DIGIT.search(token) else {}
                for token, known in zip(answer.tokens, answer.top, strict=False))
    return replace(answer, token_ids=(), top=top)


def _folder(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {out}: {error.strerror}", "answers are kept on disk",
                           "free space or correct paths.workspace") from error
    return out


def _write(path: Path, answer: _Answer) -> None:
    """Writes one answer so that it is there whole or not at all."""
    found = answer.generation
    record = {"text": found.text, "tokens": found.tokens, "logprobs": found.logprobs, "top": found.top,
              "finish_reason": found.finish_reason, "prompt_tokens": found.prompt_tokens,
              "completion_tokens": found.completion_tokens, "entropies": answer.entropies}
    passing = path.with_suffix(f".{os.getpid()}.part")
    try:
        with passing.open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        passing.replace(path)
    except OSError as error:
        passing.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}", "each answer is stored when it is finished",
                           "free space, then run again: finished answers are kept") from error


def _read(path: Path) -> _Answer | None:
    """A finished answer, or None where there is none or the file was torn by a power cut (it is asked again)."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    found = Generation(text=record["text"], token_ids=(), tokens=tuple(record["tokens"]),
                       logprobs=tuple(record["logprobs"]), top=tuple(record["top"]),
                       finish_reason=record["finish_reason"], prompt_tokens=record["prompt_tokens"],
                       completion_tokens=record["completion_tokens"])
    return _Answer(found, tuple(record["entropies"]))
