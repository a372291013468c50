"""The forest: for each patient one search tree (or a set of samples), many at once, each on disk once it is finished.

In: patients, a `Reasoner`, a folder. Out: their `Grown` records, in the patients' order; one file each in the folder.

What survives: after kill -9 no finished patient is searched again; a half-written file does not count. A patient whose
search fails (its prompt is longer than the context, its evidence shows nothing) fails the run, but only at its end,
when all others are finished and saved. A server that stays dead after `tries` recoveries, a full disk or a bug ends
the run at once; what is finished is saved by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts.errors import ContractError, EagRlError, ServerError, StorageError
from contracts.generation import Generate, Generation
from contracts.patients import Patient
from prompts import templates
from search.harvest import Grown, Trajectory
from search.mcts import Rollout, search, together
from search.reasoning import Line, Reasoner, Reasoning, describe
from search.records import digest, load, record_path, save, sweep
from search.sampling import sample
from search.tree import Node, as_json

Recover = Callable[[], Awaitable[None]]
OnDone = Callable[[int, int], None]
# Settings that change what a search finds; the others (how many at once, how many are kept) leave records valid.
_SAMPLING = ("method", "rollouts", "depth", "temperature", "question_tokens", "answer_tokens")
_GROWTH = {"sampling": _SAMPLING, "tree": (*_SAMPLING, "candidates", "exploration")}


async def grow(patients: Sequence[Patient], reasoner: Reasoner, out: Path, *, rewards_key: str = "",
               recover: Recover | None = None, tries: int = 3, on_done: OnDone | None = None) -> list[Grown]:
    """Searches for every patient that has no valid record in `out`, up to `patients_at_once` together.

    Args:
        patients: each stay at most once.
        rewards_key: names the reward settings; records made under another name are redone.
        recover: called when the server fails in mid-search, once for all calls that fail together; the calls are then
            repeated. None: a server error ends the run.
        tries: repeats of one call before its error counts.
        on_done: called with (finished, all) after every patient, and once at the start with those found on disk.

    Raises:
        ContractError: a stay occurs twice.
        ServerError, StorageError: at once. Any other EagRlError: of the first failed patient, after all others.
    """
    _check_distinct(patients)
    sweep(out)
    guarded = replace(reasoner, generate=_Guarded(reasoner.generate, recover, tries) if recover else reasoner.generate)
    grove = _Grove(guarded, out, rewards_key, on_done, len(patients))
    for patient in patients:
        grove.take(patient)
    grove.report()
    waiting = iter(grove.waiting)
    await together(grove.work(waiting) for _ in range(min(reasoner.section.patients_at_once, len(grove.waiting))))
    grove.raise_failures()
    return [grove.grown[patient.stay_id] for patient in patients]


async def grow_tree(problem: Reasoning) -> Grown:
    """Searches for one patient, by the method of the settings."""
    root, reasoner = Node(Line()), problem.reasoner
    find = sample if reasoner.section.method == "sampling" else search
    rollouts = await find(problem, root, reasoner.settings(problem.patient))
    tally = problem.tally
    return Grown(problem.patient.stay_id, tuple(_trajectory(problem, rollout) for rollout in rollouts),
                 as_json(root, describe), dict(tally.calls), dict(+tally.faults), tally.prompt_tokens,
                 tally.completion_tokens)


def _trajectory(problem: Reasoning, rollout: Rollout[Line]) -> Trajectory:
    line, score = rollout.state, problem.score(rollout.state)
    assert line.probability is not None
    return Trajectory(rollout.number, line.text, score.total, score.outcome, score.attention, line.probability,
                      score.features, line.steps, score.well_formed, rollout.revisit)


@dataclass
class _Grove:
    """The patients of one run: those finished, those waiting, those failed."""

    reasoner: Reasoner
    out: Path
    rewards_key: str
    on_done: OnDone | None
    total: int
    grown: dict[str, Grown] = field(default_factory=dict)
    waiting: list[Patient] = field(default_factory=list)
    failures: list[EagRlError] = field(default_factory=list)

    def take(self, patient: Patient) -> None:
        """Takes the patient's record from the disk, or puts the patient in the queue."""
        record = load(record_path(self.out, patient.stay_id), self._key(patient))
        if record is None:
            self.waiting.append(patient)
        else:
            self.grown[patient.stay_id] = record

    async def work(self, waiting: Any) -> None:
        """One of `patients_at_once` workers: searches for patient after patient."""
        for patient in waiting:
            try:
                grown = await grow_tree(self.reasoner.problem(patient))
            except (ServerError, StorageError):
                raise
            except EagRlError as error:
                self.failures.append(error)
                continue
            await _to_the_end(save, record_path(self.out, patient.stay_id), grown, self._key(patient))
            self.grown[patient.stay_id] = grown
            self.report()

    def report(self) -> None:
        """Tells the caller how many are finished."""
        if self.on_done:
            self.on_done(len(self.grown), self.total)

    def raise_failures(self) -> None:
        """Fails the run if a patient failed, with the first error and their number."""
        if self.failures:
            first = self.failures[0]
            raise type(first)(f"{len(self.failures)} of {self.total} searches failed, the first: {first.value}",
                              first.rule, f"{first.next_step} (finished searches are kept)") from first

    def _key(self, patient: Patient) -> str:
        """What a record depends on: the settings of growth, the seed, the model, the prompts, rewards and patient."""
        reasoner = self.reasoner
        section = reasoner.section.model_dump(include=set(_GROWTH[reasoner.section.method]))
        return digest([section, reasoner.model, reasoner.seed, reasoner.outcome, reasoner.count, self.rewards_key,
                       templates.VERSION, patient.stay_id, patient.label, patient.evidence, list(patient.shown),
                       list(patient.expert_features)])


class _Guarded:
    """A `Generate` that lets the server be recovered, once for all calls that failed together, and asks again."""

    def __init__(self, generate: Generate, recover: Recover, tries: int) -> None:
        self._generate, self._recover, self._tries = generate, recover, tries
        self._lock, self._recoveries = asyncio.Lock(), 0

    async def __call__(self, *args: Any, **settings: Any) -> list[Generation]:
        for _ in range(self._tries):
            seen = self._recoveries
            try:
                return await self._generate(*args, **settings)
            except ServerError:
                await self._recover_once(seen)
        return await self._generate(*args, **settings)

    async def _recover_once(self, seen: int) -> None:
        async with self._lock:
            if self._recoveries == seen:
                await self._recover()
                self._recoveries += 1


async def _to_the_end(function: Callable[..., None], *arguments: Any) -> None:
    """Calls it in a thread and, though cancelled, leaves only when the thread has ended: a record is never cut off."""
    thread = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.gather(thread, return_exceptions=True)
        raise


def _check_distinct(patients: Sequence[Patient]) -> None:
    repeated = len(patients) - len({patient.stay_id for patient in patients})
    if repeated:
        raise ContractError(f"patients repeats {repeated} stays", "each stay is searched once",
                            "look for duplicate stays in the cohort")
