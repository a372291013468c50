"""LoRA adapters on the running server: a PEFT folder goes in, the name to ask for in requests comes out.

A name is the hash of the adapter's content, so that new weights never meet the prefix cache of old ones (vLLM keys the
cache by adapter name), and an adapter is sent once however often it is asked for. A canary shows that the server really
applies it: log-probabilities of a neutral prompt must differ from the base model's.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from contracts.errors import ModelError
from serving.client import Client

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
CANARY_PROMPT = tuple(range(40, 64))  # any ids do: they are the same for base and adapter, and hold nothing
SMALLEST_DIFFERENCE = 1e-6  # nats


class Server(Protocol):
    """What the shelf needs of a server."""

    @property
    def model_name(self) -> str:
        """Name of the base model."""
        ...

    def ensure(self) -> None:
        """Restarts the server if it died."""
        ...


class AdapterShelf:
    """The adapters loaded on one server, at most `limit` of them; the one unused for longest makes room.

    Adapters that must be usable at the same time (by requests that run concurrently) may not exceed `limit`.

    Args:
        client: how the server is asked; while the shelf exists it also recovers the client's server: restart, then
            adapters again.
        server: restarted when it died.
        prompt_ids: of the canary; ids must exist in the model's vocabulary.
    """

    def __init__(self, client: Client, server: Server, prompt_ids: Sequence[int] = CANARY_PROMPT) -> None:
        self._client, self._server, self._prompt = client, server, tuple(prompt_ids)
        self.limit = client.section.adapters
        self._loaded: OrderedDict[str, Path] = OrderedDict()
        self._passed: set[str] = set()
        self._base_scores: np.ndarray | None = None
        self._lock, self._recovering = asyncio.Lock(), asyncio.Lock()
        client.recover = self.recover

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the loaded adapters, the one unused for longest first."""
        return tuple(self._loaded)

    async def load(self, folder: Path) -> str:
        """Makes the adapter in `folder` usable and returns its name for requests.

        The folder must stay as it is while the adapter is in use: vLLM may read it again.

        Raises:
            ModelError: the folder holds no adapter, or the server does not apply it (canary).
            ServerError: the server refuses the adapter or does not answer.
        """
        name = await asyncio.to_thread(adapter_name, folder)
        async with self._lock:
            await self.recover()
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return name
            while len(self._loaded) >= self.limit:
                await self._unload(next(iter(self._loaded)))
            await self._send(name, folder, await self._served())
            self._loaded[name] = folder
            try:
                await self._check_applied(name, folder)
            except ModelError:
                await self._unload(name)
                raise
        return name

    async def recover(self) -> None:
        """Restarts the server if it died and loads its adapters again; the client calls this before it tries again.

        Raises:
            ServerError: the server cannot be restarted.
        """
        async with self._recovering:
            await asyncio.to_thread(self._server.ensure)
            served = await self._served()
            for name, folder in list(self._loaded.items()):
                await self._send(name, folder, served)

    async def _served(self) -> dict[str, str]:
        """Folders of the models that the server has, by name; "" where it does not say."""
        cards = (await self._client.get("/v1/models")).json()["data"]
        return {card["id"]: card.get("root") or "" for card in cards}

    async def _send(self, name: str, folder: Path, served: Mapping[str, str]) -> None:
        """Loads an adapter, unless the server has it from a folder that is still there.

        The name may be bound to a copy of the same adapter that has been deleted since, such as one that a training
        served from its scratch folder: the server would read it again after others had displaced it.
        """
        if name in served:
            source = Path(served[name]) if served[name] else self._loaded.get(name)  # a server need not say it
            if source is not None and await asyncio.to_thread(_holds, source, name, folder):
                return
            await self._client.admin("/v1/unload_lora_adapter", {"lora_name": name},
                                     already=f"'{name}' cannot be found")
        await self._client.admin("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder.resolve())},
                                 already=f"'{name}' has already been loaded")

    async def _unload(self, name: str) -> None:
        self._loaded.pop(name)
        await self._client.admin("/v1/unload_lora_adapter", {"lora_name": name},
                                 already=f"'{name}' cannot be found")

    async def _check_applied(self, name: str, folder: Path) -> None:
        """The canary of a served adapter; one request per adapter, none where B is all zero (it changes nothing)."""
        if name in self._passed:
            return
        if not await asyncio.to_thread(changes_nothing, folder):
            if self._base_scores is None:
                self._base_scores = await self._scores(self._server.model_name)
            difference = float(np.abs(await self._scores(name) - self._base_scores).max())
            if not difference > SMALLEST_DIFFERENCE:
                raise ModelError(
                    f"the server answers the same with and without adapter {folder.name} ({name}): the largest "
                    f"difference in log-probability is {difference:.1e}", "an adapter with B != 0 changes the output",
                    "check that the adapter was trained for this base model and that the server has --enable-lora")
        self._passed.add(name)

    async def _scores(self, model: str) -> np.ndarray:
        """Log-probabilities (T,) of the tokens of a fixed prompt under `model`, the first left out."""
        answer: dict[str, Any] = await self._client.post("/v1/completions", {
            "model": model, "prompt": list(self._prompt), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0,
            "add_special_tokens": False}, quotes_prompts=False)
        rows = answer["choices"][0]["prompt_logprobs"][1:]
        return np.array([row[str(token)]["logprob"] for row, token in zip(rows, self._prompt[1:], strict=True)])


def adapter_name(folder: Path) -> str:
    """Content-hash name of a PEFT adapter: "lora-" and 16 digits of the SHA-256 over config and weights.

    Raises:
        ModelError: a file of the adapter is missing.
    """
    digest = hashlib.sha256()
    for part in (CONFIG, WEIGHTS):
        path = folder / part
        if not path.is_file():
            raise ModelError(f"{folder} holds no {part}", f"an adapter folder holds {CONFIG} and {WEIGHTS}",
                             "rerun the training stage that writes it")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"lora-{digest.hexdigest()[:16]}"


def _holds(source: Path, name: str, folder: Path) -> bool:
    """Whether the folder that a server reads an adapter from is `folder`, or still holds the same one."""
    if source.resolve() == folder.resolve():
        return True
    return all((source / part).is_file() for part in (CONFIG, WEIGHTS)) and adapter_name(source) == name


def changes_nothing(folder: Path) -> bool:
    """Whether all B weights are zero, as in the adapter that training starts from.

    Raises:
        ModelError: the weights cannot be read or hold no B matrix.
    """
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as weights:
            names = [name for name in weights.keys() if ".lora_B." in name or ".lora_embedding_B" in name]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {type(error).__name__}", "adapter weights are a safetensors file",
                         "rerun the training stage that writes it") from error
    if not names:
        raise ModelError(f"{path} holds no lora_B matrix", "a LoRA adapter", "check the adapter's type in its config")
    return not any(_has_nonzero(path, name) for name in names)


def _has_nonzero(path: Path, name: str) -> bool:
    """Whether any byte of one tensor is not zero but for signs (numpy knows no bfloat16, so bytes are looked at)."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_size))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        raw = np.frombuffer(file.read(end - start), dtype=np.uint8)
    width = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}.get(entry["dtype"], 1)
    values = raw.reshape(-1, width).copy()
    if width > 1:
        values[:, -1] &= 0x7F  # -0.0 is zero
    return bool(values.any())
