"""What the stage `rl` says in words about a training."""

from tasks.rl import remarks


def test_an_early_end_and_each_warning_with_its_remedy_are_told() -> None:
    warning = {"signature": "entropy collapse", "seen": "entropy fell", "remedy": "raise policy.grpo.clip_max"}
    assert remarks({"steps": 6, "ended_early": "rollout_budget = 24", "warnings": [warning]}) == [
        "- ended early: rollout_budget = 24", "- **entropy collapse**: entropy fell; raise policy.grpo.clip_max"]
    assert remarks({"steps": 8, "warnings": []}) == []
