"""What pip's output says about why it failed, in one sentence (pure)."""

from __future__ import annotations

import re

_TOLD = 3
"""Versions that a sentence names."""
_UNREACHED = re.compile(r"Retrying \(.*connection broken by")
_NONE_FITS = re.compile(
    r"Could not find a version that satisfies the requirement (.+?) \(from .*versions: (.*)\)"
)
_CONFLICT = re.compile(
    r"Cannot install (.+?) because these package versions have conflicting dependencies"
)
_BUILT = re.compile(r"^(?:Collecting|Processing) (\S+)", re.MULTILINE)
_END = "[end of output]"
_INVALID = re.compile(r"Invalid requirement: (.+?)(?: \(from line [0-9]+ of .*\))?$", re.MULTILINE)
_SENTENCES = (
    (_INVALID, "{} is not a requirement"),
    (re.compile(r"Could not open requirements file: (?:\[Errno [0-9]+\] )?(.+)"), "{}"),
    (re.compile(r"Package '(.+?)' requires a different Python: (.+)"), "{} needs another Python: {}"),
    (re.compile(r"Could not install packages due to an OSError: (?:\[Errno [0-9]+\] )?(.+)"), "{}"),
)  # fmt: skip


def reason(output: str) -> str:
    """The sentence, without a full stop.

    Args:
        output: all that pip wrote, stdout and stderr.
    """
    if none := _NONE_FITS.search(output):
        if none[2].strip() != "none":
            newest = ", ".join(none[2].split(", ")[-_TOLD:])
            return f"no version fits {none[1]}; the newest are {newest}"
        if _UNREACHED.search(output):
            return f"the package index cannot be reached (looking for {none[1]})"
        return f"no such package {none[1]}"
    if found := _CONFLICT.search(output):
        return f"{found[1]} exclude each other"
    for pattern, sentence in _SENTENCES:
        if match := pattern.search(output):
            return sentence.format(*(part.strip() for part in match.groups()))
    if _END in output:
        before = output.partition(_END)[0]
        named = _BUILT.findall(before)
        said = next((line.strip() for line in reversed(before.splitlines()) if line.strip()), "")
        return f"{named[-1] if named else 'a package'} could not be built: {said}"
    lines = [line for line in output.splitlines() if line.strip()] or ["pip said nothing"]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return errors[-1].partition(":")[2].strip() if errors else lines[-1].strip()
