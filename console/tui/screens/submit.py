"""Writing a job: the file as it is, what the check says of it, and `$EDITOR` a key away.

The file is looked at each second, so it may as well be edited in another window.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Vertical

from console.tui import outside
from console.tui.core.draw.lines import Line, line, titled
from console.tui.core.jobs import draft
from console.tui.core.jobs.draft import Verdict
from console.tui.screens.modals import Modal
from console.tui.widgets.panel import Panel
from jobs.base.places import places

LARGEST = 1 << 18
"""Bytes of a job file that are shown; the check reads all of it."""


class Submit(Modal[str]):
    """Gives the id of the job that was submitted, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss_empty", show=False),
        Binding("e", "edit", show=False),
        Binding("y", "submit", show=False),
    ]

    def __init__(self, file: Path | None = None) -> None:
        super().__init__()
        self._file = file or outside.here() / "job.yaml"
        self._text = ""
        self._stamp: tuple[int, int] | None = None  # of the file that was checked last
        self._verdict: Verdict | None = None
        self._sending = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Panel(self._draft, id="draft")
            yield Panel(self._said, id="verdict", focusable=False)

    def on_mount(self) -> None:
        if not self._file.exists():
            self._file = self._template()
        self.query_one(".box").border_title = "new job"
        self.query_one("#draft").border_title = titled(str(self._file))
        self.query_one("#verdict").border_title = "check"
        self.set_interval(1.0, self._look)
        self._look()

    def _template(self) -> Path:
        """A file to begin with, where no folder of the person's is touched."""
        folder = places().state / "drafts"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = outside.new_file(folder, "job", ".yaml")
        path.write_text(draft.TEMPLATE.format(folder=outside.here()))
        return path

    def _look(self) -> None:
        """Check the file again when it is another than before."""
        try:
            found = self._file.stat()
            text = self._file.read_bytes()[:LARGEST].decode("utf-8", "replace")
        except OSError as error:
            self._verdict = Verdict(False, f"{self._file}: {error.strerror}")
            self._redraw()
            return
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        self._stamp, self._text, self._verdict = stamp, text, None
        self._redraw()
        file = self._file
        self.run_worker(
            lambda: self._checked(stamp, outside.submit(file, dry_run=True)),
            thread=True,
            exclusive=True,
        )

    def _checked(self, stamp: tuple[int, int], said: tuple[int, str, str]) -> None:
        self.app.call_from_thread(self._judge, stamp, draft.verdict(*said))

    def _judge(self, stamp: tuple[int, int], said: Verdict) -> None:
        if stamp == self._stamp:
            self._verdict = said
            self._redraw()

    def _redraw(self) -> None:
        for panel in self.query(Panel):
            panel.redraw()

    def _draft(self, width: int, height: int) -> list[Line]:
        return [line(text.expandtabs()) for text in self._text.splitlines()]

    def _said(self, width: int, height: int) -> list[Line]:
        if self._sending:
            return [line(("submitting", "dim"))]
        return draft.verdict_lines(self._verdict, width)

    def action_edit(self) -> None:
        command = [*outside.editor(os.environ), str(self._file)]
        try:
            with self.app.suspend():
                subprocess.run(command, check=False)
        except SuspendNotSupported:
            self.deck.tell(f"Edit {self._file} in another window.", severity="warning")
        except OSError as error:
            self.deck.tell(f"{command[0]}: {error.strerror}", severity="error")
        self._look()

    def action_submit(self) -> None:
        if self._verdict is None or not self._verdict.ok or self._sending:
            return
        self._sending = True
        self._redraw()
        file = self._file
        self.run_worker(lambda: self._sent(outside.submit(file, dry_run=False)), thread=True)

    def _sent(self, said: tuple[int, str, str]) -> None:
        self.app.call_from_thread(self._answer, said)

    def _answer(self, said: tuple[int, str, str]) -> Any:
        self._sending = False
        job = draft.submitted(said[1]) if said[0] == 0 else None
        if job is None:
            self._verdict = draft.verdict(*said)
            self._redraw()
        else:
            self.deck.tell(f"{job} was submitted.")
            self.dismiss(job)
