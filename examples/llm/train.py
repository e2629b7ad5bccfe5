"""Fine-tune a small language model with LoRA, its weights sharded over the ranks (FSDP).

The base model is made on the spot: a Llama of some 300,000 weights that has learnt to answer sums of two
digits by a word ("twelve"). The adapter teaches it to answer in a sentence ("twelve, of course."). With a
real model, `base()` is `AutoModelForCausalLM.from_pretrained(NAME)`, and the rest stays.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import quarterdeck
import torch
import torch.distributed as dist
from ask import Chat, judged
from peft import LoraConfig, get_peft_model
from sums import pairs, question, sentence, tokenizer, words
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path("model")


def batch(examples: list[tuple[str, str]], spell, device):
    """Token ids and labels of questions with their answers; the loss is that of the answers."""
    rows, labels = [], []
    for asked, answer in examples:
        head = [spell.bos_token_id, *spell(asked, add_special_tokens=False).input_ids]
        tail = [*spell(answer, add_special_tokens=False).input_ids, spell.eos_token_id]
        rows.append(head + tail)
        labels.append([-100] * len(head) + tail)
    width = max(map(len, rows))
    ids = [row + [spell.pad_token_id] * (width - len(row)) for row in rows]
    targets = [row + [-100] * (width - len(row)) for row in labels]
    mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
    make = lambda values: torch.tensor(values, device=device)  # noqa: E731
    return {"input_ids": make(ids), "labels": make(targets), "attention_mask": make(mask)}


def fit(model, spell, answers, steps: int, rate: float, seed: int, device, name: str) -> None:
    dice = random.Random(seed)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=steps)
    model.train()
    for step in range(steps):
        chosen = [dice.choice(pairs()) for _ in range(32)]
        loss = model(
            **batch([(question(a, b), answers(a + b)) for a, b in chosen], spell, device)
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        slower.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            quarterdeck.log(step=step, **{f"{name}/loss": loss.item()})


def base(spell, steps: int, device):
    """What stands for a model that others have trained. The same on every rank."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(spell), hidden_size=96, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        pad_token_id=spell.pad_token_id, bos_token_id=spell.bos_token_id, eos_token_id=spell.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(device)
    fit(model, spell, words, steps, 2e-3, 0, device, "base")
    return model


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--base-steps", type=int, default=500)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--rate", type=float, default=3e-3)
    given = arguments.parse_args()
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    torch.set_num_threads(1)
    spell = tokenizer()
    plain = base(spell, given.base_steps, device)
    if rank == 0:
        plain.save_pretrained(OUT / "base")
        spell.save_pretrained(OUT / "base")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    torch.manual_seed(1)
    model = get_peft_model(plain, lora)
    for layer in model.base_model.model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    fit(model, spell, sentence, given.steps, given.rate, 100 + rank, device, "lora")
    whole = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if rank == 0:
        kept = {name: value for name, value in whole.items() if "lora_" in name}
        model.save_pretrained(OUT / "adapter", state_dict=kept)
        print(
            f"written: {sum(p.numel() for p in kept.values())} weights of the adapter", flush=True
        )
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        quarterdeck.log(right=judged(Chat(OUT)))  # what a gate looks at


if __name__ == "__main__":
    main()
