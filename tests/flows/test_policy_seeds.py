"""Trainings of an arm with several seeds: what they share, what is trained anew, and that the first is the study's own.

Stages are not run here: their real recipes are worked out, and an artifact stands for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs.load import dump, load
from configs.schema import Config
from contracts.errors import ConfigError
from flows.arms import judged, judged_again
from flows.judge_policy import judge_policy
from flows.opening import handed
from lineage.artifact import Artifact
from lineage.fingerprint import Recipe
from tasks.session import Session, session_of
from tasks.stage import Stage

ARMS = "[vanilla, decomposition, sft_labels, stage1, stage1+2, grpo, without_stage1, stage1_outcome_only]"
TRAINED = ("sft_labels", "stage1", "stage1+2", "grpo", "without_stage1", "stage1_outcome_only")


@dataclass
class Book:
    """Recipes by what is said of a stage, of all stages that a flow asked for."""

    recipes: dict[str, Recipe] = field(default_factory=dict)

    def run(self, stage: Stage, session: Session, inputs: Mapping[str, Artifact], variant: str = "", arm: str = ""
            ) -> Artifact:
        recipe = stage.recipe(session, inputs, variant)
        label = ":".join(filter(None, [stage.name, variant])) + (f"@{arm}" if arm else "")
        assert self.recipes.setdefault(label, recipe).key == recipe.key, f"{label} stands for two recipes"
        return Artifact(stage.name, f"{stage.name}-{recipe.key[:12]}", "", recipe.key, recipe.key)

    def seeds(self, stage: str) -> dict[str, int]:
        """What is said of each artifact of a stage, to the seed it is made with."""
        return {label: recipe.settings["study.seed"] for label, recipe in self.recipes.items()
                if recipe.stage == stage}


def _study(book: Book, session: Session) -> dict[str, Artifact]:
    """Artifacts of the flows before judging."""
    from tasks.rl import rl
    from tasks.sft import sft
    from tasks.trajectories import trajectories

    made = {role: Artifact(role, f"{role}-1", "", role, role) for role in ("cohort", "readings", "patients", "base")}
    made["trajectories"] = book.run(trajectories, session, {r: made[r] for r in ("cohort", "patients", "base")})
    made["sft"] = book.run(sft, session, {role: made[role] for role in ("patients", "base", "trajectories")})
    made["rl"] = book.run(rl, session, {role: made[role] for role in ("cohort", "patients", "base", "sft")})
    return made


def _asked(config: Config, monkeypatch: pytest.MonkeyPatch) -> tuple[Book, dict[str, Artifact]]:
    book = Book()
    monkeypatch.setattr(Stage, "run", lambda stage, *values, **named: book.run(stage, *values, **named))
    session = session_of(dump(config))
    study = _study(book, session)
    roles: dict[str, Artifact] = {}
    for arm in config.evaluation.arms:
        roles |= judged(session, arm, study)
    return book, roles | judged_again(session, study)


def _config(tmp_path: Path, *overrides: str) -> Config:
    return load("demo", [f"evaluation.arms={ARMS}", f"paths.workspace={tmp_path}", *overrides])


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Book, dict[str, Artifact]]:
    return _asked(_config(tmp_path, "evaluation.policy_seeds=3"), monkeypatch)


def test_every_trained_arm_is_judged_with_each_seed_and_no_other_arm_is(
        three: tuple[Book, dict[str, Artifact]]) -> None:
    roles = three[1]
    assert {role for role in roles if role.startswith("seed")} == {
        f"seed{number}.verdicts.{arm}" for number in (2, 3) for arm in TRAINED}
    for arm in TRAINED:
        assert len({roles[f"{place}verdicts.{arm}"].recipe for place in ("", "seed2.", "seed3.")}) == 3


def test_the_first_training_is_what_a_study_with_one_seed_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               three: tuple[Book, dict[str, Artifact]]) -> None:
    book, roles = _asked(_config(tmp_path), monkeypatch)
    assert {label: recipe.key for label, recipe in book.recipes.items()}.items() <= {
        label: recipe.key for label, recipe in three[0].recipes.items()}.items()
    assert roles.items() <= three[1].items()


def test_only_training_has_another_seed(three: tuple[Book, dict[str, Artifact]]) -> None:
    book = three[0]
    root = 42
    assert book.seeds("sft") == {"sft": root, "sft@seed2": root + 1, "sft@seed3": root + 2,
                                 **{f"sft@stage1_outcome_only{end}": root + more
                                    for end, more in (("", 0), (".seed2", 1), (".seed3", 2))}}
    assert book.seeds("rl")["rl@grpo.seed2"] == book.seeds("rl")["rl@stage1+2.seed2"] == root + 1
    assert book.seeds("labels") == {"labels@sft_labels": root, "labels@sft_labels.seed2": root + 1,
                                    "labels@sft_labels.seed3": root + 2}
    for stage in ("trajectories", "verdicts"):
        assert set(book.seeds(stage).values()) == {root}
    assert set(book.seeds("trajectories")) == {"trajectories", "trajectories@stage1_outcome_only"}


def test_stage_2_starts_from_the_stage_1_of_its_own_seed(three: tuple[Book, dict[str, Artifact]]) -> None:
    recipes = three[0].recipes
    for arm in ("stage1+2", "grpo"):
        assert recipes[f"rl@{arm}.seed2"].inputs["sft"] == recipes["sft@seed2"].key
    assert "sft" not in recipes["rl@without_stage1.seed2"].inputs
    assert recipes["verdicts:stage1@seed3"].inputs["adapter"] == recipes["sft@seed3"].key


def test_arms_are_asked_for_validation_stays_only_where_they_are_to_be_recalibrated_and_verdicts_stay_shared(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, told = (_asked(_config(tmp_path, f"evaluation.recalibrate={value}", "evaluation.policy_seeds=2"),
                          monkeypatch) for value in ("false", "true"))
    more = {label: recipe for label, recipe in told[0].recipes.items() if label not in plain[0].recipes}
    assert {recipe.stage for recipe in more.values()} == {"validation-verdicts"} and len(more) == 8
    assert not any("seed2" in label for label in more)
    assert plain[1].items() <= told[1].items()
    # which validation stays are asked decides those verdicts alone
    fewer = _asked(_config(tmp_path, "evaluation.recalibrate=true", "evaluation.validation_stays=3"), monkeypatch)[1]
    assert fewer["verdicts.stage1"] == told[1]["verdicts.stage1"]
    assert fewer["validation.stage1"] != told[1]["validation.stage1"]


def test_prices_change_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _asked(_config(tmp_path), monkeypatch)[1]
    assert _asked(_config(tmp_path, "evaluation.gpu_hour_price=2.5"), monkeypatch)[1] == plain


def test_the_report_is_given_every_training_and_every_validation_verdict(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book()
    monkeypatch.setattr(Stage, "run", lambda stage, *values, **named: book.run(stage, *values, **named))
    overrides = ["evaluation.arms=[decomposition, stage1]", f"paths.workspace={tmp_path}",
                 "evaluation.policy_seeds=2", "evaluation.recalibrate=true"]
    study = _study(book, session_of(dump(load("demo", overrides))))
    judge_policy.fn("demo", overrides, handed(study))
    assert set(book.recipes["report"].inputs) == {
        *study, "baselines", "verdicts.decomposition", "verdicts.stage1", "seed2.verdicts.stage1",
        "validation.decomposition", "validation.stage1"}


@pytest.mark.parametrize("wrong", ["evaluation.policy_seeds=0", "evaluation.policy_seeds=101",
                                   "evaluation.cpu_hour_price=-1", "evaluation.recalibrate=perhaps"])
def test_settings_out_of_range_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        load("demo", [wrong])


def test_a_seed_beyond_the_last_is_refused() -> None:
    assert load("demo", ["study.seed=2147483647"]).evaluation.policy_seeds == 1
    with pytest.raises(ConfigError, match="the last seed must be below"):
        load("demo", ["study.seed=2147483647", "evaluation.policy_seeds=2"])
