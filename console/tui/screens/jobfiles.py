"""The Files pane of the Job screen: what the job wrote, read while it is looked at."""

from __future__ import annotations

from typing import Any, cast

from textual import on

from console.tui import outside
from console.tui.actions import bindings
from console.tui.core.draw.lines import BLANK, Line, line
from console.tui.core.jobs import files
from console.tui.core.jobs.files import Entry
from console.tui.screens.base import Frame
from console.tui.widgets.marks import Marked
from console.tui.widgets.rows import Rows
from jobs.base.errors import QuarterdeckError
from jobs.base.states import TERMINAL
from jobs.wire.views import FilesView, FileView

REFRESH = 10.0
"""Seconds between two looks at the files of a job that runs: each node of its gang is asked."""

NOTE = "note: "
"""Begins the keys of rows that say what could not be listed."""


class Files(Rows):
    """A tree of folders and files. What is asked for goes through the screen that it is on, with keys that
    begin with `files `; the screen passes the answers back."""

    PANE = "files"
    BINDINGS = bindings("files")

    def __init__(self, job_id: str, *, id: str | None = None) -> None:
        super().__init__(self._line, id=id)
        self.job_id = job_id
        self._view: FilesView | None = None
        self._error: QuarterdeckError | None = None
        self._entries: dict[str, Entry] = {}
        self._turned: set[str] = set()  # folders folded or unfolded by hand
        self._everything = False
        self._asked = float("-inf")
        self._settled = False  # the job has ended, and was looked at after that
        self._reading = False

    @property
    def _ended(self) -> bool:
        known = self.deck.world.details.get(self.job_id)
        return known is not None and known["state"] in TERMINAL

    # Asking.

    def tick(self) -> None:
        """A second has passed."""
        self._title()
        if not self.display or self.deck.frozen or self._settled:
            return
        if self.deck.clock.mono() - self._asked >= REFRESH:
            self._ask()

    def on_show(self) -> None:
        self.tick()
        self._redraw()

    def _ask(self) -> None:
        self._asked = self.deck.clock.mono()
        self._reading = True
        self._settled = self._ended
        source, job_id, everything = self.deck.source, self.job_id, self._everything
        self.deck.fetch("files list", lambda: source.files(job_id, everything=everything))
        self._title()

    def fetched(self, what: str, value: Any, error: QuarterdeckError | None) -> None:
        if what == "list":
            self._reading = False
            self._error = error
            if error is None:
                self._view = value
            self._redraw()
        elif error is not None:
            # A file may have been removed since it was listed.
            self.deck.tell(f"{error.message}. {error.hint}".strip(), severity="error")
            self._ask()
        else:
            file, data = cast("tuple[FileView, bytes]", value)
            glyphs = self.deck.glyphs
            self.deck.page(file["path"], lambda width: files.head_lines(file, data, width, glyphs))

    # Lines out.

    def _redraw(self) -> None:
        found = files.entries(self._view["files"], self._turned) if self._view else []
        self._entries = {entry.key: entry for entry in found}
        notes = []
        if self._view is not None and found:
            kept = files.kept_until(self._view, self.deck.clock.wall())
            notes = [f"{NOTE}{text}" for text in (*self._view["missing"], kept) if text]
        self.set_keys([*self._entries, *notes], self._nothing())
        self.update_lines()  # sizes and times may differ in rows that are still there
        self._title()

    def _nothing(self) -> list[Line]:
        width = self.size.width
        if self._error is not None:
            told = [line((f" {self._error.message}", "error"))]
            return [*told, line((f" {self._error.hint}", "dim"))] if self._error.hint else told
        if self._view is None:
            return [line((" reading", "dim"))]
        return files.nothing(self._view, ended=self._ended, width=width)

    def _line(self, key: str, width: int) -> Line:
        if key.startswith(NOTE):
            missing = self._view is not None and key.removeprefix(NOTE) in self._view["missing"]
            return line((f" {key.removeprefix(NOTE)}", "warn" if missing else "dim"))
        entry = self._entries.get(key)
        if entry is None or self._view is None:
            return BLANK
        nodes = files.several_nodes(self._view)
        return files.entry_line(entry, self.deck.clock.wall(), width, self.glyphs, nodes=nodes)

    def _title(self) -> None:
        dot = self.glyphs.dot
        told = [files.title(self._view, dot)]
        if self._reading and self._view is None:
            told.append("reading")
        if self._error is not None and self._view is not None:
            told.append("not read again")
        if self._everything:
            told.append("with what it came with")
        if marked := len(self.marked):
            told.append(f"{marked} marked")
        if (copying := self.deck.copies.get(self.job_id)) is not None and copying.words:
            told.append(copying.words)
        elif self._view is not None and self._view["missing"]:
            told.append("not all could be listed")
        cast(Frame, self.screen).set_title("files", f" {dot} ".join(told))

    # What a person does.

    @on(Rows.Opened)
    def _opened(self, message: Rows.Opened) -> None:
        message.stop()
        if (entry := self._entries.get(message.key)) is None:
            return  # a note
        if (file := entry.file) is None:
            self._turn(entry)
        elif "link" in file:
            self.deck.tell(f"{file['path']} is a link to {file['link']}.")
        else:
            source, job_id = self.deck.source, self.job_id
            self.deck.fetch(
                "files head", lambda: (file, source.file_head(job_id, file, files.HEAD_BYTES))
            )

    @on(Marked.Marks)
    def _marks_changed(self) -> None:
        self._title()

    def _turn(self, entry: Entry) -> None:
        self._turned ^= {entry.key}
        self._redraw()
        self.select(entry.key)

    def do_files_unfold(self) -> None:
        entry = self._entries.get(self.cursor_key or "")
        if entry is not None and entry.folded:
            self._turn(entry)

    def do_files_fold(self) -> None:
        """Fold the folder under the cursor, or go to the one that this is in."""
        entry = self._entries.get(self.cursor_key or "")
        if entry is not None and entry.folded is False:
            self._turn(entry)
        elif entry is not None:
            self.select(files.parent(entry.key))

    def do_files_all(self) -> None:
        self._everything = not self._everything
        self._ask()

    def do_files_again(self) -> None:
        self._ask()

    def do_files_pull(self) -> None:
        """As `qd pull`: into a folder named after the job, where the console was started."""
        chosen = [self._entries[key] for key in self.chosen if key in self._entries]
        wanted = files.meant(chosen)
        if not wanted:
            self.deck.tell("There is no file here.", severity="warning")
            return
        copying = self.deck.copies.get(self.job_id)
        if copying is not None and not copying.over:
            self.deck.tell("Files of this job are being copied already.", severity="warning")
            return
        self.deck.pull(self.job_id, wanted, outside.here() / self.job_id)
        self.clear_marks()
        self._title()
