"""The logs of the Job screen: which rank is shown, and what a person does with its lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import cast

from textual import on
from textual.app import SuspendNotSupported

from console.tui import outside
from console.tui.core.jobs import job
from console.tui.logdesk import LogDesk
from console.tui.screens.base import Frame
from console.tui.widgets.grid import Grid
from console.tui.widgets.logview import LogView, Told
from console.tui.widgets.prompt import Prompt
from jobs.base.errors import QuarterdeckError
from jobs.wire.views import AttemptView, JobDetail, RankView


class LogActions(Frame):
    """What a person does with logs. `desks` are the log view and the one beside it, by their ids."""

    job_id: str
    desks: dict[str, LogDesk]
    ranks: dict[str, RankView]

    @property
    def detail(self) -> JobDetail | None:
        return self.deck.world.details.get(self.job_id)

    @property
    def attempt(self) -> AttemptView | None:
        return job.current(self.detail) if self.detail else None

    @property
    def desk(self) -> LogDesk:
        """The one that has focus, else the first."""
        focused = self.focused
        name = focused.id if isinstance(focused, LogView) else None
        return self.desks[name if name in self.desks else "logs"]

    def title_logs(self) -> None:
        for name, desk in self.desks.items():
            self.set_title(name, desk.title(self.deck.glyphs.dot))

    @on(LogView.Followed)
    def _followed(self) -> None:
        if self.desks and self.alive:
            self.title_logs()

    @on(LogView.NeedsEarlier)
    def _needs_earlier(self, message: Told) -> None:
        self._told(message).logs.earlier()

    @on(LogView.NeedsLater)
    def _needs_later(self, message: Told) -> None:
        self._told(message).logs.later()

    @on(LogView.NeedsEnd)
    def _needs_end(self, message: Told) -> None:
        self._told(message).to_end()

    def _told(self, message: Told) -> LogDesk:
        return self.desks[message.view.id or "logs"]

    # Which rank.

    def select_rank(self, rank: int | None) -> None:
        if rank is not None and str(rank) not in self.ranks:
            self.deck.tell(f"{self.job_id} has no rank {rank}.", severity="warning")
            return
        self.desk.select(rank, self.desk.logs.keep)
        if rank is not None:
            self.query_one("#ranks", Grid).select(str(rank))
        self.title_logs()
        self.poll_logs()

    def poll_logs(self) -> None:
        """Ask for what follows."""
        raise NotImplementedError

    def _step_rank(self, by: int) -> None:
        known = [int(key) for key in self.ranks]
        if known:
            rank = self.desk.logs.rank
            at = known.index(rank) + by if rank in known else (0 if by > 0 else -1)
            self.select_rank(known[at % len(known)])

    @on(Grid.Opened)
    def _rank_opened(self, message: Grid.Opened) -> None:
        self.select_rank(int(message.key))
        self.focus_pane("logs")

    def do_ranks_pick(self, key: str) -> None:
        self.select_rank(int(key))

    def do_logs_rank_next(self) -> None:
        self._step_rank(1)

    def do_logs_rank_previous(self) -> None:
        self._step_rank(-1)

    def do_logs_all(self) -> None:
        self.select_rank(None)

    def do_logs_beside(self) -> None:
        """Open a second log beside the first, of the rank in the strip; or close it."""
        view = self.query_one("#beside", LogView)
        view.display = not view.display
        desk = self.desks["beside"]
        if not view.display:
            desk.logs.pause()
            self.focus_pane("logs")
            return
        key = self.query_one("#ranks", Grid).cursor_key
        attempt = self.attempt
        if attempt is not None:
            desk.logs.attend(attempt["number"])
        desk.select(None if key is None else int(key))
        self.title_logs()
        self.poll_logs()

    # Moving and finding.

    def do_logs_follow(self) -> None:
        desk = self.desk
        if desk.logs.complete:
            desk.view.follow()
        else:
            desk.to_end()

    def do_logs_minute_next(self) -> None:
        self.desk.minute(1)

    def do_logs_minute_previous(self) -> None:
        self.desk.minute(-1)

    def do_logs_find(self) -> None:
        self.query_one("#find", Prompt).open()

    @on(Prompt.Closed, "#find")
    def _find_closed(self, message: Prompt.Closed) -> None:
        self.focus_pane(self._asked_from)
        self.desk.find(message.text if message.kept else "")
        self.title_logs()

    def do_logs_next(self) -> None:
        self.desk.find_next(backwards=False)

    def do_logs_previous(self) -> None:
        self.desk.find_next(backwards=True)

    def do_logs_keep(self) -> None:
        self.query_one("#keep", Prompt).open(self.desk.logs.keep)

    @on(Prompt.Closed, "#keep")
    def _keep_closed(self, message: Prompt.Closed) -> None:
        self.focus_pane(self._asked_from)
        desk = self.desk
        if message.kept and message.text != desk.logs.keep:
            desk.select(desk.logs.rank, message.text)
        self.title_logs()
        self.poll_logs()

    @property
    def _asked_from(self) -> str:
        """The log that a prompt was opened for."""
        return "beside" if self.query_one("#beside").display and self._beside_last else "logs"

    _beside_last = False

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, LogView):
            self._beside_last = self.focused.id == "beside"
        super().on_descendant_focus()

    # Out of the console.

    def do_logs_copy(self) -> None:
        text = self.desk.view.in_view()
        if text:
            self.deck.copy(text)

    def do_logs_save(self) -> None:
        """Copy the whole log to a file in the folder where the console was started."""
        self._fetch_log(outside.here(), "save")

    def do_logs_pager(self) -> None:
        """Copy the whole log to a file that goes away again, and open it in the pager."""
        if self._scratch is not None:
            return  # it is being read
        self._scratch = Path(tempfile.mkdtemp(prefix="qd-log-"))
        self._fetch_log(self._scratch, "pager")

    def _fetch_log(self, folder: Path, then: str) -> None:
        logs = self.desk.logs
        if not logs.attempt:
            return
        job_id, attempt, rank = self.job_id, logs.attempt, logs.rank
        source = self.deck.source
        name = f"{job_id}.{attempt}-{'all' if rank is None else f'r{rank}'}"

        def fetch() -> tuple[Path, int]:
            try:
                path = outside.new_file(folder, name, ".log")
                return path, outside.write_log(source, job_id, attempt, rank, path)
            except OSError as error:
                raise QuarterdeckError(f"cannot write {name}.log in {folder}: {error}") from error

        self.deck.tell(f"Reading the whole log of {name}.")
        self.deck.fetch(then, fetch)

    def log_fetched(self, then: str, value: object, error: QuarterdeckError | None) -> None:
        """The whole log is a file now, or could not be read."""
        if error is not None:
            self.sweep()
            self.deck.tell(f"{error.message}. {error.hint}".strip(), severity="error")
            return
        path, size = cast("tuple[Path, int]", value)
        if then == "save":
            self.deck.tell(f"Saved {size} bytes to {path}.")
            return
        command = [*outside.pager(os.environ), str(path)]
        try:
            with self.app.suspend():
                subprocess.run(command, check=False)
        except SuspendNotSupported:
            self.deck.tell("This terminal cannot be lent to a pager.", severity="warning")
        except OSError as problem:
            self.deck.tell(f"{command[0]}: {problem.strerror}", severity="error")
        finally:
            self.sweep()

    _scratch: Path | None = None  # where a log lies for the pager

    def sweep(self) -> None:
        """Remove what was written for the pager; also when the screen goes before the pager came."""
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None
