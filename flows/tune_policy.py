"""Flow 4: stage 1b distils the trajectories, stage 2 optimises the policy."""

from __future__ import annotations

from prefect import flow

from flows.grow_trees import grow_trees
from flows.opening import Artifacts, given, handed, held, open_session
from tasks.check import check
from tasks.rl import rl
from tasks.sft import sft


@flow(name="tune-policy", flow_run_name="policy-{config}")
def tune_policy(config: str = "demo", overrides: list[str] | None = None, made: Artifacts | None = None,
                stage_2: bool = True) -> Artifacts:
    """Supervised fine-tuning on the trajectories, a check on validation stays, then entropy-clipped GRPO.

    Args:
        config: name of a shipped configuration, or path of a YAML file.
        overrides: dotted settings, such as "policy.grpo.lr=1e-5".
        made: artifacts of the flow before; none: that flow runs first.
        stage_2: off: supervised fine-tuning and its check only.
    """
    with held(open_session(config, overrides or ())) as session:
        artifacts = given(made, grow_trees, config, overrides or [])
        artifacts["sft"] = sft.run(session, {name: artifacts[name] for name in ("patients", "base", "trajectories")})
        start = {name: artifacts[name] for name in ("cohort", "patients", "base", "sft")}
        artifacts["check"] = check.run(session, start)
        if stage_2:
            artifacts["rl"] = rl.run(session, start)
        return handed(artifacts)
