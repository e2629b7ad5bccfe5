"""Text from elsewhere, made safe and measured for a terminal.

Log lines, job names and reasons come from programs and people we do not control. Written to a
terminal as they are, they could move the cursor, retitle the window or reorder what is read.
Standard library only: the command line and the TUI both import it at start.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

ELLIPSIS = "…"

# What a terminal acts on, or what changes the order in which a line reads: C0 (tab apart), DEL and
# C1 controls, bidirectional marks, embeddings and isolates, line and paragraph separators, the
# interlinear and tag characters that are invisible, the byte order mark, and lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the Control Pictures block: ESC becomes ␛
    if code == 0x7F:
        return "␡"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_REWRITES = re.compile("[\r\b]|\x1b\\[[0-9]*[AK]")
_UP = re.compile("\x1b\\[[0-9]*A")
_CLEAR = re.compile("\x1b\\[[0-9]*K")


def last_state(text: str) -> str:
    """What a line shows in the end that a progress bar has rewritten, as a terminal would show it.

    A carriage return begins the line anew, and what is written then covers what was there. A bar
    below others moves up a line when it is done; of such rows the last one that is not blank is shown,
    since the one above was printed before. Text without any of this stays as it is.
    """
    if not _REWRITES.search(text):
        return text
    for row in reversed(_UP.split(text)):
        shown = ""
        for piece in row.split("\r"):
            if "\x1b[2K" in piece:
                shown, piece = "", piece.rpartition("\x1b[2K")[2]
            if _CLEAR.search(piece):  # what was there behind it is gone
                shown, piece = "", _CLEAR.sub("", piece)
            piece = piece.rpartition("\b")[2]
            covers = "\x1b" in shown + piece  # colours take no room: not counted, but replaced
            shown = (piece or shown) if covers else piece + shown[len(piece) :]
        if shown.strip():
            return shown.rstrip()
    return ""


def neutralise(text: str) -> str:
    """`text` on one line, with everything a terminal would act on made visible instead.

    ESC is shown as `␛`, other controls as their picture or as `\\x9b`, direction overrides as
    `\\u202e`. Tabs stay. The result never holds a newline.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, text)


@lru_cache(maxsize=4096)
def char_width(char: str) -> int:
    """Columns that one character takes: 0, 1 or 2 (East Asian wide and full-width, UAX #11)."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def width(text: str) -> int:
    """Columns that `text` takes on a terminal. Controls and tabs must be gone already."""
    if text.isascii():
        return len(text)
    return sum(map(char_width, text))


def expand_tabs(text: str, stop: int = 8) -> str:
    """Tabs as spaces up to the next multiple of `stop` columns, by display width."""
    if "\t" not in text:
        return text
    head, *rest = text.split("\t")
    for part in rest:
        head += " " * (stop - width(head) % stop) + part
    return head


def cut(text: str, columns: int) -> str:
    """`text` in at most `columns` columns; what does not fit is replaced by `…`.

    A wide character is never split: the result may be one column narrower.
    """
    if width(text) <= columns:
        return text
    if columns <= 0:
        return ""
    used, kept = 0, []
    for char in text:
        used += char_width(char)
        if used > columns - 1:
            break
        kept.append(char)
    return "".join(kept) + ELLIPSIS


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """`text` filled with spaces to `columns` columns; flush right with `right`."""
    gap = " " * max(0, columns - width(text))
    return gap + text if right else text + gap
