"""The engine vllm against a real server: what it samples is what the trained model in memory would sample."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from configs.schema import Grpo, Lora, Serving
from models.policy.adapter import load_adapter
from models.policy.chat import ChatRenderer, load_tokenizer
from models.policy.examples import Task
from models.policy.loading import load_base
from models.policy.rollouts import Request, VllmEngine, make_engine
from serving.server import VllmServer
from support.tiny_policy import tiny_adapter

SERVING = Serving(context=512, slots=8, kv_cache_gib=0.5)
# As cold as vLLM samples at all, so that a handful of the tiny policy's tokens share the probability.
COLD = Grpo(completion_tokens=8, temperature=0.01, engine="vllm")
DRAWS = 60
PROMPTS = ("Glucose 1.1, then 9.4", "pH 7.1", "Albumin 33.0, LDH 1867, then what?")


@pytest.mark.smoke
def test_the_server_samples_what_the_trained_model_would(policy_folder: Path, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [tiny_adapter(policy_folder, tmp_path / f"step-{seed}", rank=8, scale=0.05, seed=seed)
                for seed in (1, 2, 3)]
    tokenizer = load_tokenizer(policy_folder)
    render = ChatRenderer(tokenizer)
    prompts = [render([{"role": "user", "content": text}]) for text in PROMPTS]
    requests = [Request(Task(f"s{number}", tuple(prompt), 0, ()), seed)
                for number, prompt in enumerate(prompts) for seed in range(DRAWS)]
    torch.set_num_threads(1)
    with VllmServer(policy_folder, SERVING, tmp_path / "work", "float32", 8, 0) as server:
        monkeypatch.setenv("EAG_RL_SERVER_KEY", server.api_key)
        engine = make_engine({"server": {"url": server.base_url, "model_name": server.model_name}, "context": 512,
                              "serving": SERVING.model_dump()}, COLD, tokenizer)
        assert isinstance(engine, VllmEngine)
        likeliest = []
        for folder in adapters:  # one more than the server holds at once
            model = load_adapter(load_base(policy_folder, "float32"), folder, Lora(rank=8, alpha=8))
            served = engine(model, folder, requests)
            best = []
            for number, prompt in enumerate(prompts):
                first = Counter(one.ids[0] for one in served[number * DRAWS:(number + 1) * DRAWS])
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
                shares, tokens = (logits / COLD.temperature).softmax(dim=0).topk(3)
                for share, token in zip(shares.tolist(), tokens.tolist(), strict=True):
                    assert abs(first[token] / DRAWS - share) < 4 * (share * (1 - share) / DRAWS) ** 0.5, (first, share)
                best.append(tokens[0].item())
            likeliest.append(tuple(best))
        assert engine(model, folder, requests[::-1]) == served[::-1], "a seed draws the same in another batch"
        engine.close()
    assert len(set(likeliest)) == len(adapters)
