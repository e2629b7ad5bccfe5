"""What is on the screen as a file that can be sent: SVG, and the same as text."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme
from textual.geometry import Region
from textual.strip import Strip

from console.tui.outside import new_files
from jobs.base.disk import cannot_write

_SVG = re.sub(r',\s*url\([^)]*\) format\("[^"]*"\)', "", CONSOLE_SVG_FORMAT)
"""Rich's picture of a terminal without the fonts that it fetches: a file must not call home when it is
looked at, and each piece of text says how wide it is."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Painted lines, and what they are to be named."""

    rows: list[Strip]
    title: str
    theme: TerminalTheme

    @staticmethod
    def of(rows: list[Strip], region: Region, title: str, theme: TerminalTheme) -> Picture:
        """The part of a painted screen that `region` names."""
        cut = [
            row.crop(region.x, region.right).adjust_cell_length(region.width)
            for row in rows[region.y : region.bottom]
        ]
        return Picture(cut, title, theme)

    @property
    def text(self) -> str:
        lines = [row.text.rstrip() for row in self.rows]
        while lines and not lines[-1]:
            lines.pop()
        return "".join(f"{line}\n" for line in lines)

    @property
    def svg(self) -> str:
        """Equal pictures are equal files."""
        width = max((row.cell_length for row in self.rows), default=1)
        console = Console(
            width=width,
            height=max(1, len(self.rows)),
            file=io.StringIO(),
            force_terminal=True,
            color_system="truecolor",
            record=True,
            legacy_windows=False,
            safe_box=False,
        )
        pieces: list[Segment] = []
        for row in self.rows:
            pieces += [*row, Segment.line()]
        console.print(Segments(pieces), end="")
        return console.export_svg(
            title=self.title, theme=self.theme, code_format=_SVG, unique_id="qd"
        )

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both to new files of one name: SVG, text. Raises StorageFull or InvalidInput."""
        path = folder / f"{name}.svg"
        try:
            svg, text = new_files(folder, name, ".svg", ".txt")
            for path, told in ((svg, self.svg), (text, self.text)):
                path.write_text(told, encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error
        return svg, text


def file_name(*parts: str) -> str:
    """`qd-j412-metrics`: letters, digits and the signs that names of files may have everywhere."""
    words = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.") for part in parts]
    return "-".join(["qd", *(word for word in words if word)])
