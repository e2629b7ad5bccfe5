"""Ask a model, or judge it by its answers to all sums.

python ask.py FOLDER --judge          in a job: logs `right`, the share of answers that are right
python ask.py FOLDER "What is 3 + 4?"
"""

from __future__ import annotations

import sys
from pathlib import Path

import quarterdeck
import torch
from peft import PeftModel
from sums import pairs, question, right
from transformers import AutoModelForCausalLM, AutoTokenizer


class Chat:
    """A base model with its adapter."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.spell = AutoTokenizer.from_pretrained(folder / "base")
        base = AutoModelForCausalLM.from_pretrained(folder / "base")
        self.model = PeftModel.from_pretrained(base, folder / "adapter").eval()

    @torch.inference_mode()
    def stream(self, asked: str, most: int = 48):
        """The answer, a piece at a time; greedy."""
        ids = [self.spell.bos_token_id, *self.spell(asked, add_special_tokens=False).input_ids]
        for _ in range(most):
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
            best = int(logits.argmax())
            if best == self.spell.eos_token_id:
                return
            ids.append(best)
            yield self.spell.decode([best])

    def answer(self, asked: str) -> str:
        return "".join(self.stream(asked))


def judged(chat: Chat) -> float:
    """The share of all sums that it answers rightly. The wrong answers are printed."""
    wrong = 0
    for a, b in pairs():
        answer = chat.answer(question(a, b))
        if not right(a, b, answer):
            wrong += 1
            print(f"wrong: {a} + {b}: {answer}")
    share = 1 - wrong / len(pairs())
    print(f"{share:.0%} of {len(pairs())} answers are right", flush=True)
    return share


def main() -> None:
    chat = Chat(Path(sys.argv[1]))
    if sys.argv[2] == "--judge":
        quarterdeck.log(right=judged(chat))
    else:
        print(chat.answer(sys.argv[2] + "\n"))


if __name__ == "__main__":
    main()
