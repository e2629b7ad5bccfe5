"""How `make docs` builds the site: Sphinx with MyST, strict about links."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

project = "Quarterdeck"
author = "the Quarterdeck developers"
extensions = ["myst_parser", "sphinx_copybutton"]
exclude_patterns = ["_build", "pictures/work"]
html_theme = "furo"
html_title = "Quarterdeck"
html_extra_path = ["job.schema.json", "sweep.schema.json"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nitpicky = True
suppress_warnings = [
    "misc.highlighting_failure",  # excerpts of YAML with an ellipsis in them
]
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True


def write_commands(app: Sphinx) -> None:
    """Write commands.md, the help of every command: what `--help` says is the one source of it."""
    from console.cli.commands import every
    from console.cli.program import run

    os.environ |= {"COLUMNS": "84", "NO_COLOR": "1", "TERM": "dumb"}
    pages = [
        "# Every command",
        "What `--help` says. How commands behave: [the command line](cli.md).",
    ]
    for name in sorted(every()):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            if code := run([*name.split(), "--help"]):
                raise RuntimeError(f"qd {name} --help: exit code {code}")
        pages.append(f"## qd {name}\n\n```text\n{said.getvalue().strip()}\n```")
    text = "\n\n".join(pages) + "\n"
    page = HERE / "commands.md"
    if not page.exists() or page.read_text() != text:  # an unchanged page is not read again
        page.write_text(text)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_commands)
