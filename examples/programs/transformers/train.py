"""The Trainer of transformers on a tiny model that is made here, with TensorBoard as its reporter."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

LENGTH, WORDS = 32, 64


def main() -> None:
    torch.manual_seed(7)
    config = GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2)
    rows = []
    for start in torch.randint(0, WORDS, (128,)).tolist():
        ids = torch.arange(start, start + LENGTH) % WORDS
        rows.append({"input_ids": ids, "labels": ids})
    arguments = TrainingArguments(
        "out",
        num_train_epochs=3,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        logging_steps=2,
        eval_strategy="epoch",
        report_to="tensorboard",
    )
    model = GPT2LMHeadModel(config)
    Trainer(model, arguments, train_dataset=rows[:112], eval_dataset=rows[112:]).train()


if __name__ == "__main__":
    main()
