"""LoRA adapters of the policy: made, loaded, saved and told apart by content.

The item is one adapter folder: adapter_config.json and adapter_model.safetensors, as PEFT and vLLM read them. Adapters
are served and stored as they are and never merged into the base, which in bfloat16 would round the base away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from configs.schema import Lora
from contracts.errors import ModelError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
NAME = "default"
_AGAIN = "train stage 1 again with the present policy.model and policy.lora"


def new_adapter(base: PreTrainedModel, lora: Lora) -> PeftModel:
    """The base with a fresh adapter on all linear layers but the output head; it changes nothing yet (B = 0)."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(base, LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout,
                                           target_modules="all-linear", task_type="CAUSAL_LM"))


def load_adapter(base: PreTrainedModel, folder: Path, lora: Lora) -> PeftModel:
    """The base with the adapter in `folder`, ready for more training.

    Raises:
        ModelError: the folder holds no adapter, only pickled weights, or one of another rank or base.
    """
    from peft import PeftModel

    settings = _settings(folder)
    if (settings.get("r"), settings.get("lora_alpha")) != (lora.rank, lora.alpha):
        raise ModelError(f"adapter {folder} has rank {settings.get('r')}, alpha {settings.get('lora_alpha')}",
                         f"policy.lora says rank {lora.rank}, alpha {lora.alpha}", _AGAIN)
    try:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(f"adapter {folder} does not fit the model: {str(error).splitlines()[0][:200]}",
                         "an adapter belongs to one base model", _AGAIN) from error


def save_adapter(model: PeftModel, folder: Path) -> Path:
    """Writes the trained adapter so that a reader finds all of it or nothing, and returns the folder."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(str(temporary), selected_adapters=[NAME])
    for path in temporary.iterdir():
        if path.name not in (WEIGHTS, SETTINGS):
            path.unlink()
    _tidy(temporary / SETTINGS)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


def adapter_digest(folder: Path) -> str:
    """Content hash of an adapter: sha256 over the bytes of its settings and its weights."""
    digest = hashlib.sha256()
    for part in (SETTINGS, WEIGHTS):
        with (folder / part).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _tidy(path: Path) -> None:
    """Takes out of PEFT's settings what hangs on process and machine: the order of its sets, the base model's folder.

    Else equal adapters have other bytes in every process, and a resumed job never finds its stored rollouts.
    """
    values = {name: sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
              for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    values["base_model_name_or_path"] = None  # whose adapter this is stands in the lineage
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _settings(folder: Path) -> dict[str, object]:
    path = Path(folder) / SETTINGS
    if not path.is_file() or not (Path(folder) / WEIGHTS).is_file():
        raise ModelError(f"no {SETTINGS} with {WEIGHTS} in {folder}", "an adapter folder holds both (never pickles)",
                         "run stage 1 first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"{path} is no JSON: {error}", "an adapter has PEFT's settings", _AGAIN) from error
    return dict(values)
