"""The trained expert: saved as safetensors with its description beside it, loaded, and asked.

In: a folder with `expert.safetensors` and `expert.json`. Out: an `ExpertModel`, which `read` asks for risk and
attention.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.schema import Expert
from contracts.errors import ContractError, ModelError, StorageError
from models.expert.architectures import Model, make_model
from models.expert.batches import Batch, Scaling, tensors
from models.expert.concare import Reading

WEIGHTS, DESCRIPTION = "expert.safetensors", "expert.json"
STAYS_AT_ONCE = 512


@dataclass(frozen=True)
class ExpertModel:
    """A trained expert and all that is needed to ask it.

    Attributes:
        model: in evaluation mode.
        features: F names, in the order of the tokens.
        catalogue: name of the feature catalogue.
        scaling: feature (and "age") to mean, sd, low, high.
        section: its hyperparameters.
    """

    model: Model
    features: tuple[str, ...]
    catalogue: str
    scaling: Scaling
    section: Expert

    def batch(self, stays: pl.DataFrame, filled: pl.DataFrame) -> Batch:
        """Tensors of new stays (contract STAYS) and their filled visits, with the training split's scaling.

        Raises:
            ContractError: the visits' features are not those of the expert, or a frame breaks its contract.
        """
        lacking = [name for name in self.features if name not in filled.columns]
        if lacking:
            raise ContractError(f"visits lack {lacking[:5]}", f"the expert reads {len(self.features)} features",
                                f"prepare the stay with catalogue {self.catalogue!r}")
        return tensors(stays, filled, self.features, self.scaling)


def save_weights(model: Model, path: Path) -> None:
    """Writes the weights; a reader finds all of them or nothing.

    Raises:
        StorageError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        save_file({name: value.detach().contiguous().cpu() for name, value in model.state_dict().items()}, temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write {path}: {error}", "a writable folder with free space",
                           "free disk space or choose another paths.workspace, then run again") from error


def load_weights(path: Path, features: int, section: Expert) -> Model:
    """The model of a weights file, in evaluation mode.

    Raises:
        ModelError: the file is missing, unreadable, or of other sizes.
    """
    model = make_model(features, section)
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0]}",
                         f"weights of a {section.architecture} with {features} features and hidden={section.hidden}",
                         "train the expert again") from error
    return model.eval()


def load_expert(folder: Path) -> ExpertModel:
    """Loads the winner of a training.

    Raises:
        ModelError: a file is missing or damaged.
    """
    described = read_description(folder)
    try:
        section, features = Expert.model_validate(described["section"]), tuple(described["features"])
        catalogue, scaling = str(described["catalogue"]), described["scaling"]
    except (KeyError, ValidationError) as error:
        raise ModelError(f"{folder / DESCRIPTION}: {error}", "features, catalogue, scaling and section of an expert",
                         "train the expert again") from error
    return ExpertModel(load_weights(folder / WEIGHTS, len(features), section), features, catalogue, scaling, section)


def read_description(folder: Path) -> dict[str, Any]:
    """The content of expert.json.

    Raises:
        ModelError: it is missing or no JSON object.
    """
    path = folder / DESCRIPTION
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "the folder of a finished expert training",
                         "train the expert again") from error
    if not isinstance(described, dict):
        raise ModelError(f"{path} holds a {type(described).__name__}", "a JSON object", "train the expert again")
    return described


def read(expert: ExpertModel | Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """Risk (B,) and attention (B, F + 1), static token last, at the last visit of each stay."""
    reading = read_at(expert.model if isinstance(expert, ExpertModel) else expert, batch, batch.last.unsqueeze(1))
    return torch.sigmoid(reading.logits[:, 0]), reading.attention[:, 0]


def read_at(model: Model, batch: Batch, visits: Tensor) -> Reading:
    """Reads B stays at the visits (B, Q), in evaluation mode and without gradients, some stays at a time."""
    training = model.training
    model.eval()
    with torch.no_grad():
        parts = [model(batch.select(rows), visits[rows]) for rows in portions(len(batch))]
    model.train(training)
    return Reading(torch.cat([part.logits for part in parts]), torch.cat([part.attention for part in parts]),
                   parts[0].decov, parts[0].over_visits)


def portions(size: int) -> Iterator[Tensor]:
    """Row numbers 0 .. size - 1 in portions that fit the memory."""
    return iter(torch.arange(size).split(STAYS_AT_ONCE))
