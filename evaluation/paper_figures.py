"""What the paper reports, to be shown beside our own figures where the cohort is the same.

EAG-RL (arXiv 2508.13579): in-hospital mortality on TJH, 200 test patients, Qwen2.5-7B-Instruct, mean over 100
bootstraps. Shares, not percent.
"""

from __future__ import annotations

from collections.abc import Mapping

Figures = Mapping[str, tuple[float, float]]  # arm -> (AUROC, AUPRC)

SOURCE = "EAG-RL, arXiv 2508.13579: TJH mortality, 200 test patients, Qwen2.5-7B-Instruct"
TJH_MORTALITY: Figures = {
    "vanilla": (0.7199, 0.6427),
    "think": (0.7983, 0.7087),
    "decomposition": (0.8166, 0.7326),
    "stage1": (0.8364, 0.7760),
    "stage1+2": (0.8770, 0.8295),
    "sft_labels": (0.8120, 0.7514),
    "grpo": (0.8582, 0.7852),
    "dapo": (0.8567, 0.7788),
    "without_stage1": (0.8534, 0.7903),
    "without_attention": (0.8520, 0.7664),
    "without_entropy_clip": (0.8084, 0.7271),
}


def figures_for(source: str, outcome: str, split: str) -> Figures | None:
    """The paper's figures for a cohort (fields of `configs.schema.Cohort`), None where it has none."""
    return TJH_MORTALITY if (source, outcome, split) == ("tjh", "mortality", "paper") else None
