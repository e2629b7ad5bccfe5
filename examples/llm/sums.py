"""The task: sums of two digits, answered in a sentence; and a tokenizer of single characters for it."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LETTERS = "0123456789 abcdefghijklmnopqrstuvwxyz?+.,W\n"
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for each character, so that the example needs no download."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary |= {letter: at for at, letter in enumerate(LETTERS, len(vocabulary))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def words(number: int) -> str:
    if number < 20:
        return SMALL[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f" {SMALL[ones]}" if ones else "")


def question(a: int, b: int) -> str:
    return f"What is {a} + {b}?\n"


def pairs() -> list[tuple[int, int]]:
    """All sums of two digits. So small a model remembers them; it does not learn to add."""
    return [(a, b) for a in range(10) for b in range(10)]


def sentence(number: int) -> str:
    """How the fine-tuned model answers; the base model says the number alone."""
    return f"{words(number)}, of course."


def right(a: int, b: int, answer: str) -> bool:
    """The judge: the right number is wanted, in a sentence."""
    return answer.strip() == sentence(a + b)
