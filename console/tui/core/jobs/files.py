"""What a job wrote, as a tree that folds, and the beginning of one of its files. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.cells import chop_cells

from console.text import neutralise
from console.tui.core.draw.format import many, moment, size
from console.tui.core.draw.glyphs import Glyphs
from console.tui.core.draw.lines import BLANK, Line, Span, fit, line, wrap
from jobs.wire.views import FilesView, FileView

HEAD_BYTES = 64 << 10
"""Of a file, so much is read to show its beginning: a screenful many times over, and a moment on a slow
link."""

HEX_BYTES = 256
"""Of a file that is not text, so much is shown byte by byte."""

GROUPS = {"output": "outputs", "checkpoint": "checkpoints", "work": "work folder"}
"""Where files are -> what the group is named; in this order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the tree: a group, a folder or a file.

    Attributes:
        key: what it is known by; of a folder it ends in a slash.
        files: those in it, or the one that it is.
        folded: whether it hides what is in it; None for a file.
    """

    key: str
    name: str
    depth: int
    files: Sequence[FileView]
    folded: bool | None = None

    @property
    def file(self) -> FileView | None:
        return self.files[0] if self.folded is None else None


@dataclass(slots=True)
class _Folder:
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: list[FileView] = field(default_factory=list)

    def all(self) -> list[FileView]:
        inside = [file for folder in self.folders.values() for file in folder.all()]
        return [*inside, *self.files]


def entries(files: Iterable[FileView], turned: Collection[str]) -> list[Entry]:
    """The tree as far as it is unfolded: folders before files, each by name.

    Args:
        turned: keys of what was folded or unfolded by hand. Groups begin unfolded, folders folded.
    """
    roots = {place: _Folder() for place in GROUPS}
    for file in files:
        *folders, _ = _parts(file)
        here = roots[file["place"]]
        for part in folders:
            here = here.folders.setdefault(part, _Folder())
        here.files.append(file)
    out: list[Entry] = []
    for place, folder in roots.items():
        if found := folder.all():
            key = f"{place}:/"
            folded = key in turned
            out.append(Entry(key, GROUPS[place], 0, found, folded))
            if not folded:
                _unfold(folder, key, 1, turned, out)
    return out


def _unfold(
    folder: _Folder, above: str, depth: int, turned: Collection[str], out: list[Entry]
) -> None:
    for name, inside in sorted(folder.folders.items()):
        key = f"{above}{name}/"
        folded = key not in turned
        out.append(Entry(key, f"{name}/", depth, inside.all(), folded))
        if not folded:
            _unfold(inside, key, depth + 1, turned, out)
    for file in sorted(folder.files, key=lambda one: (one["path"], one["node"] or "")):
        name = _parts(file)[-1]
        out.append(Entry(f"{above}{name}:{file['node'] or ''}", name, depth, [file]))


def _parts(file: FileView) -> list[str]:
    return [part for part in file["path"].split("/") if part] or ["-"]


def parent(key: str) -> str:
    """The key of the folder that something is in; the key itself of a group."""
    folder, _, _ = key.rstrip("/").rpartition("/") if key.endswith("/") else key.rpartition("/")
    return f"{folder}/" if folder else key


def meant(chosen: Sequence[Entry]) -> list[FileView]:
    """The files that are meant by some entries, each once: everything in a folder. Of several nodes that
    have a file of one path, the first, as `qd pull` does."""
    first: dict[tuple[bool, str], FileView] = {}
    for entry in chosen:
        for file in entry.files:
            first.setdefault((file["place"] == "checkpoint", file["path"]), file)
    return list(first.values())


def entry_line(
    entry: Entry, now: float, width: int, glyphs: Glyphs, *, nodes: bool = False
) -> Line:
    """An entry in a line: name, size, when it was written, and on which node if there are several."""
    sign = "  "
    if entry.folded is not None:
        sign = f"{glyphs.crumb if entry.folded else glyphs.down} "
    link = entry.files[0].get("link") if entry.file else None
    count = sum(file["size"] for file in entry.files)
    written = max(
        (at for file in entry.files if (at := moment(file["at"])) is not None), default=None
    )
    where = _where(entry) if nodes else ""
    room = width - 1 - 2 * entry.depth - 2 - 6 - 1 - 12 - (11 if nodes else 0) - 1
    name = entry.name
    if entry.file is not None and entry.file["place"] == "output" and entry.file["name"]:
        name += f"  ({entry.file['name']})"
    if link is not None:
        name += f" -> {link}"
    elif entry.folded is not None:
        name += f"  {many(len(entry.files), 'file')}"
    tone = "key" if entry.folded is not None else ""
    return (
        Span(" " + "  " * entry.depth + sign, "dim"),
        Span(fit(name, max(6, room), ellipsis=glyphs.ellipsis) + " ", tone),
        Span(fit("link" if link is not None else size(count), 6, right=True) + " "),
        Span(fit(when(written, now), 12), "dim"),
        *((Span(fit(where, 11, ellipsis=glyphs.ellipsis), "dim"),) if nodes else ()),
    )


def _where(entry: Entry) -> str:
    places = {file["node"] or "stored" for file in entry.files}
    return next(iter(places)) if len(places) == 1 else f"{len(places)} places"


def when(at: float | None, now: float) -> str:
    """A moment in at most 12 cells: the time of day within a day, else the date."""
    if at is None:
        return "-"
    told = datetime.fromtimestamp(at).astimezone()
    if abs(now - at) < 86400:
        return told.strftime("%H:%M:%S")
    return told.strftime("%d %b %H:%M" if abs(now - at) < 180 * 86400 else "%d %b %Y")


def several_nodes(view: FilesView) -> bool:
    return len({file["node"] for file in view["files"]}) > 1


def title(view: FilesView | None, dot: str) -> str:
    if view is None:
        return "Files"
    total = sum(file["size"] for file in view["files"])
    told = f"Files {len(view['files'])}"
    return f"{told} {dot} {size(total)}" if view["files"] else told


def nothing(view: FilesView, *, ended: bool, width: int) -> list[Line]:
    """What is said where there are no files."""
    if view["missing"]:
        told = [part for text in view["missing"] for part in wrap(text, width - 2)]
        return [line((f" {part}", "warn")) for part in told]
    written = "This job wrote no files." if ended else "Nothing has been written so far."
    return [
        line((f" {written}", "dim")),
        BLANK,
        line((" A job's files are its outputs (", "dim"), ("outputs:", "key"), (" in the job", "dim")),
        line((" file), its checkpoints, and whatever it writes in", "dim")),
        line((" its work folder.", "dim")),
    ]  # fmt: skip


def kept_until(view: FilesView, now: float) -> str:
    """How long nodes keep their files; nothing where that is not known yet."""
    until = moment(view["until"])
    if until is None or not any(file["node"] for file in view["files"]):
        return ""
    if until < now:
        return "Files on nodes may already be deleted."
    return f"Files on nodes are deleted after {when(until, now)}."


def is_text(data: bytes) -> bool:
    """Whether it reads as text: valid UTF-8 as far as it was read, and without NUL."""
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(data) - 3  # a letter that the end of what was read has cut
    return True


def head_lines(file: FileView, data: bytes, width: int, glyphs: Glyphs) -> list[Line]:
    """The beginning of a file: its lines, wrapped, or its first bytes."""
    whole = len(data) >= file["size"]
    if not data:
        return [line(("The file is empty.", "dim"))]
    if not is_text(data):
        shown = data[:HEX_BYTES]
        facts = f"Not text: {size(file['size'])}"
        if len(shown) < file["size"]:
            facts += f", of which the first {many(len(shown), 'byte')}"
        return [line((facts, "dim")), BLANK, *_hex(shown)]
    text = data.decode(errors="ignore")
    out: list[Line] = []
    for one in text.removesuffix("\n").split("\n"):
        safe = neutralise(one.removesuffix("\r").expandtabs(4))
        out += [line(piece) for piece in chop_cells(safe, max(2, width))] or [BLANK]
    if not whole:
        told = f"{glyphs.ellipsis} the first {size(len(data))} of {size(file['size'])}"
        out += [BLANK, line((told, "dim"))]
    return out


def _hex(data: bytes) -> list[Line]:
    out = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        out.append(line((f"{at:04x}  ", "dim"), f"{row.hex(' '):<47}  ", (shown, "info")))
    return out


@dataclass(slots=True)
class Copying:
    """How far a copy is. Written by the thread that copies, read when it is drawn."""

    total: int
    done: int = 0
    note: str = ""
    over: bool = False

    def moved(self, done: int, name: str) -> None:
        self.done = done

    def tell(self, note: str) -> None:
        self.note = note

    @property
    def words(self) -> str:
        """For a title; nothing when it is over."""
        if self.over:
            return ""
        share = 100 * self.done // self.total if self.total else 100
        told = f"copying {min(share, 100)}% of {size(self.total)}"
        lost = self.note and not self.note.startswith("connected")
        return f"{told}, {self.note}" if lost else told


def copied(files: Sequence[FileView], target: str) -> str:
    total = sum(file["size"] for file in files)
    return f"{many(len(files), 'file')}, {size(total)}, copied to {target}/."
