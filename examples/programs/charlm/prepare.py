"""Writes data/train.bin and data/val.bin: English text, a byte per character."""

from pathlib import Path
from pydoc_data.topics import topics

text = "\n".join(topics.values()).encode("ascii", "ignore")
data = Path(__file__).with_name("data")
data.mkdir(exist_ok=True)
cut = len(text) * 9 // 10
(data / "train.bin").write_bytes(text[:cut])
(data / "val.bin").write_bytes(text[cut:])
print(f"{cut:,} characters to train on, {len(text) - cut:,} to validate with")
