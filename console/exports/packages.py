"""Which versions of packages an interpreter here has, as the text of a requirements file."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable

from jobs.base.errors import InvalidInput

SERVER = ("onnxruntime", "uvicorn", "httptools", "uvloop")
"""What our model server imports."""

_PROGRAM = """
import json, importlib.metadata as m
print(json.dumps([
    [d.metadata["Name"], d.version, d.read_text("direct_url.json") is not None, d.requires or []]
    for d in m.distributions() if d.metadata["Name"]
]))
"""
_TOOLS = frozenset({"pip", "setuptools", "wheel", "quarterdeck"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def frozen(python: str) -> tuple[str, list[str]]:
    """All that an interpreter's environment has, and the packages that are left out since no index has them.

    Raises InvalidInput for an interpreter that does not answer.
    """
    found = _distributions(python)
    lines = [f"{n}=={v}" for n, (v, local, _) in sorted(found.items()) if not local]
    return "".join(f"{line}\n" for line in lines), sorted(n for n, d in found.items() if d[1])


def closure(python: str, roots: Iterable[str]) -> str:
    """Some packages and all that they need, as an interpreter's environment has them.

    Raises InvalidInput that names what is missing.
    """
    found = _distributions(python)
    missing = [name for name in roots if name not in found and name in SERVER[:2]]
    if missing:
        raise InvalidInput(
            f"the model server needs {' and '.join(missing)}, of which no version is installed here",
            "`pip install 'quarterdeck[serve]'`, or give --requirements FILE with exact versions.",
        )
    wanted, todo = set(), [name for name in roots if name in found]
    while todo:
        name = todo.pop()
        if name in wanted:
            continue
        wanted.add(name)
        for text in found[name][2]:
            needed = _plain(_NAME.match(text.strip()))
            if "extra ==" not in text and needed in found:
                todo.append(needed)
    return "".join(f"{name}=={found[name][0]}\n" for name in sorted(wanted))


def _distributions(python: str) -> dict[str, tuple[str, bool, list[str]]]:
    """Version, whether it came from a folder or an address, and what it needs; by the plain name."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True
        )
        listed = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InvalidInput(
            f"python: {python} does not say which packages it has: {error}",
            "Give --requirements FILE with exact versions.",
        ) from None
    found = {_plain(name): (version, local, needs) for name, version, local, needs in listed}
    return {name: one for name, one in found.items() if name not in _TOOLS}


def _plain(name: str | re.Match[str] | None) -> str:
    text = name if isinstance(name, str) else name[0] if name else ""
    return re.sub(r"[-_.]+", "-", text).lower()
