"""Which model an expert is: by name in the settings."""

from __future__ import annotations

from configs.schema import Expert
from models.expert.concare import ConCare
from models.expert.gru import AttentionGru

Model = ConCare | AttentionGru


def make_model(features: int, section: Expert) -> Model:
    """A new expert with random weights.

    Args:
        features: F.
    """
    return ConCare(features, section) if section.architecture == "concare" else AttentionGru(features, section)
