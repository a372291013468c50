"""The engine vllm against a real server: what it samples is what the trained model in memory would sample."""

from pathlib import Path

import pytest
import torch

from configs.schema import Grpo, Lora, Serving
from models.policy.adapter import load_adapter
from models.policy.chat import ChatRenderer, load_tokenizer
from models.policy.examples import Task
from models.policy.loading import load_base
from models.policy.rollouts import Request, TransformersEngine, VllmEngine, make_engine
from serving.server import VllmServer
from support.tiny_policy import tiny_adapter

SERVING = Serving(context=512, slots=8, kv_cache_gib=0.5)
COLD = Grpo(completion_tokens=8, temperature=1e-3, engine="vllm")


@pytest.mark.smoke
def test_the_server_samples_what_the_trained_model_would(policy_folder: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [tiny_adapter(policy_folder, tmp_path / f"step-{seed}", rank=8, scale=0.05, seed=seed)
                for seed in (1, 2, 3)]
    tokenizer = load_tokenizer(policy_folder)
    render = ChatRenderer(tokenizer)
    tasks = [Task(f"s{index}", tuple(render([{"role": "user", "content": f"Glucose {index}.1, then 9.4"}])), 0, ())
             for index in range(3)]
    requests = [Request(task, seed) for seed, task in enumerate(tasks)]
    torch.set_num_threads(1)
    with VllmServer(policy_folder, SERVING, tmp_path / "work", "float32", 8, 0) as server:
        monkeypatch.setenv("EAG_RL_SERVER_KEY", server.api_key)
        engine = make_engine({"server": {"url": server.base_url, "model_name": server.model_name}, "context": 512,
                              "serving": SERVING.model_dump()}, COLD, tokenizer)
        assert isinstance(engine, VllmEngine)
        served = []
        for folder in adapters:  # one more than the server holds at once
            model = load_adapter(load_base(policy_folder, "float32"), folder, Lora(rank=8, alpha=8))
            served.append(engine(model, folder, requests))
            assert served[-1] == TransformersEngine(COLD, tokenizer, rows=1)(model, folder, requests)
        engine.close()
    assert served[0] != served[1] != served[2]
