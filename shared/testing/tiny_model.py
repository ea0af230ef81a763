"""Tiny, real, deterministic models with a byte-level tokenizer and a chat template, for tests.

Their weights are random, their files are what `save_pretrained` writes, so everything that reads a
real checkpoint reads these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def build_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Write a checkpoint (about 0.1 M parameters, vocabulary about 400) to `folder`; returns it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    wide = {"head_dim": 8, "tie_word_embeddings": True}
    return _build(LlamaForCausalLM, LlamaConfig, folder, seed, **_LLAMA_LIKE, **wide)


def build_tiny_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """A GPT-2: learned positions, Conv1D layers with biases, no Llama. Returns `folder`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return _build(GPT2LMHeadModel, GPT2Config, folder, seed, n_embd=48, n_layer=3, n_head=4)


def build_tiny_qwen2(folder: Path, *, seed: int = 0) -> Path:
    """A Qwen2: a Llama but for biases on queries, keys and values. Returns `folder`."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return _build(Qwen2ForCausalLM, Qwen2Config, folder, seed, **_LLAMA_LIKE)


_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def _build(model_class: Any, config_class: Any, folder: Path, seed: int, **sizes: Any) -> Path:
    import torch

    tokenizer = train_tokenizer(_CORPUS, size=400)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(
            config_class(
                vocab_size=len(tokenizer),
                max_position_embeddings=512,
                initializer_range=0.2,
                bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
                eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
                # not the end of a turn: the padding row of the embedding, and so of a tied
                # head, is zero
                pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
                **sizes,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_tokenizer(texts: Sequence[str], *, size: int) -> Any:
    """A byte-level tokenizer with the chat template: about `size` tokens learned from `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


_CORPUS = [
    '{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}',
    "system\nYou are a helpful assistant.\nuser\nassistant\n",
    "You can call this function: What is the weather in the city of London today?",
    "The quick brown fox jumps over the lazy dog. Question: Answer: yes no true false null",
]
