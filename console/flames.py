"""Samples of stacks: what takes the time, as a list, an SVG and a speedscope document. Pure.

Samples come folded, one line for each different stack: `outermost;...;innermost COUNT`, where a frame is
`function (file.py:12)`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

Stacks = Mapping[tuple[str, ...], int]
"""Outermost frame first -> samples."""

WIDTH, HEIGHT = 1200, 18
"""Pixels of an SVG and of one of its rows."""
_LETTER = 6.6
_LEAST = 0.3
"""Pixels: what is narrower is left out, and its place stays empty."""


@dataclass(frozen=True)
class Function:
    """Attributes:
    own: samples in which it was innermost; `total`: in which it was anywhere.
    """

    name: str
    own: int
    total: int


def parse(text: str) -> dict[tuple[str, ...], int]:
    """The stacks of folded lines; a line that is none is left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdecimal():
            found[tuple(stack.split(";"))] += int(count)
    return dict(found)


def functions(stacks: Stacks) -> list[Function]:
    """Functions, the one with most samples of its own first. Lines of one function count together."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for stack, count in stacks.items():
        names = [_function(frame) for frame in stack]
        own[names[-1]] += count
        for name in set(names):
            if not name.startswith("thread ("):
                total[name] += count
    ranked = sorted(total, key=lambda name: (-own[name], -total[name], name))
    return [Function(name, own[name], total[name]) for name in ranked]


def _function(frame: str) -> str:
    return re.sub(r":\d+\)$", ")", frame)


@dataclass
class _Node:
    count: int = 0
    below: dict[str, _Node] = field(default_factory=dict)


def _tree(stacks: Stacks) -> _Node:
    root = _Node()
    for stack, count in stacks.items():
        root.count += count
        node = root
        for frame in stack:
            node = node.below.setdefault(frame, _Node())
            node.count += count
    return root


def svg(stacks: Stacks, title: str) -> str:
    """A flame graph: width is the share of samples, the outermost frame on top. A click on a frame
    widens it, one on the top row shows all again."""
    root = _tree(stacks)
    rows: list[str] = []
    deepest = 0
    # Not by recursion: stacks may be deeper than Python's own.
    waiting = [(f"all: {title}", root, 0.0, 0)]
    while waiting:
        name, node, left, depth = waiting.pop()
        width = WIDTH * node.count / root.count
        if width < _LEAST:
            continue
        deepest = max(deepest, depth)
        rows.append(_box(name, node.count, root.count, left, width, depth))
        for frame, below in sorted(node.below.items()):
            waiting.append((frame, below, left, depth + 1))
            left += WIDTH * below.count / root.count
    height = (deepest + 1) * HEIGHT + 2
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">\n'
        f"<title>{escape(title)}</title>\n"
        f"<style>rect{{stroke:#fff;stroke-width:.5}}g{{cursor:pointer}}text{{pointer-events:none}}</style>\n"
        + "\n".join(rows)
        + f"\n<script><![CDATA[{_SCRIPT % {'width': WIDTH, 'letter': _LETTER}}]]></script>\n</svg>\n"
    )


def _box(name: str, count: int, of: int, left: float, width: float, depth: int) -> str:
    clean = escape("".join(char if char.isprintable() else "?" for char in name))
    hue = (
        sum(map(ord, _function(name))) % 40 + 15
    )  # the same function has the same colour everywhere
    label = clean if len(name) * _LETTER < width else ""
    top = depth * HEIGHT + 1
    return (
        f'<g data-x="{left:.2f}" data-w="{width:.2f}"><title>{clean}: {count} samples, {count / of:.1%}'
        f'</title><rect x="{left:.2f}" y="{top}" width="{width:.2f}" height="{HEIGHT - 1}"'
        f' fill="hsl({hue},85%,68%)"/><text x="{left + 3:.2f}" y="{top + 12}">{label}</text></g>'
    )


_SCRIPT = """
const boxes = [...document.querySelectorAll("g")];
for (const box of boxes) box.addEventListener("click", () => {
  const from = +box.dataset.x, share = +box.dataset.w;
  for (const one of boxes) {
    const x = (one.dataset.x - from) * %(width)d / share, w = one.dataset.w * %(width)d / share;
    const [title, rect, text] = one.children;
    one.style.display = x + w <= 0.01 || x >= %(width)d - 0.01 ? "none" : "";
    const left = Math.max(0, x), wide = Math.min(%(width)d, x + w) - left;
    rect.setAttribute("x", left);
    rect.setAttribute("width", Math.max(0, wide));
    text.setAttribute("x", left + 3);
    const name = title.textContent.replace(/: \\d+ samples.*/, "");
    text.textContent = name.length * %(letter)s < wide ? name : "";
  }
});
"""


def speedscope(stacks: Stacks, title: str, rate: int) -> dict[str, Any]:
    """A sampled profile as https://www.speedscope.app/file-format-schema.json says. Order in time is lost."""
    index: dict[str, int] = {}
    samples = [[index.setdefault(frame, len(index)) for frame in stack] for stack in stacks]
    weights = [count / rate for count in stacks.values()]
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": title,
        "exporter": "quarterdeck",
        "activeProfileIndex": 0,
        "shared": {"frames": [dict(_parts(frame)) for frame in index]},
        "profiles": [
            {
                "type": "sampled",
                "name": title,
                "unit": "seconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        ],
    }


def _parts(frame: str) -> Iterator[tuple[str, Any]]:
    """Name, file and line of `function (file.py:12)`."""
    match = re.fullmatch(r"(.+) \(([^()]+):(\d+)\)", frame)
    yield "name", match[1] if match else frame
    if match:
        yield "file", match[2]
        yield "line", int(match[3])
