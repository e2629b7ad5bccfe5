"""The Containerfile of a workload and what goes with it, as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.base.errors import InvalidInput
from jobs.exports.workload import APP, MODELS, OURS, PORT, UID, Workload

CONTEXT = ("app", "quarterdeck", "models", "requirements.txt")
"""What a build may read; everything else of the folder is ignored."""
_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
_EXACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*={2,3}\s*[^\s;,*]+\s*(;.*)?")
_HASHED = re.compile(r".+(--hash=sha256:|#sha256=)[0-9a-f]{64}.*")
_LOCAL = re.compile(r"(\./|[A-Za-z0-9_])[^\s@=<>~!]*\.(whl|tar\.gz)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an image is made of.

    Attributes:
        base: the image to begin with, pinned by its digest.
        requires: the text of a requirements file, None when nothing is installed.
        labels: of the image, by their full names.
    """

    base: str
    requires: str | None
    labels: Mapping[str, str]


def is_pinned(reference: str) -> bool:
    """Whether a reference names one image for ever."""
    return _DIGEST.fullmatch(reference) is not None


def unpinned(requirements: str) -> list[str]:
    """The lines of a requirements file that may mean something else tomorrow."""
    joined = re.sub(r"\\\n\s*", " ", requirements)
    found = []
    for line in joined.splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if not text or text.startswith("--"):
            continue
        if not any(form.fullmatch(text) for form in (_HASHED, _LOCAL)) and not _EXACT.fullmatch(
            text.split(" --hash")[0]
        ):
            found.append(text)
    return found


def containerfile(workload: Workload, plan: Plan) -> str:
    """The file as `podman build` reads it."""
    lines = [
        f"FROM {plan.base}",
        "",
        *(f"LABEL {key}={_quoted(value)}" for key, value in sorted(plan.labels.items())),
        "",
    ]
    if plan.requires is not None:
        # Before the code: a change of the code does not install everything again.
        lines += [
            "COPY requirements.txt /tmp/requirements.txt",
            *_wheels(plan.requires),
            "RUN python3 -m pip install --no-cache-dir --no-input --disable-pip-version-check "
            "-r /tmp/requirements.txt",
            "",
        ]
    if workload.models:
        lines.append(f"COPY models/ {MODELS}/")
    lines += [
        f"COPY quarterdeck/ {OURS}/",
        f"COPY --chown={UID}:{UID} app/ {APP}/",
        "",
        f"WORKDIR {APP}",
        f'ENV PYTHONPATH="{OURS}${{PYTHONPATH:+:${{PYTHONPATH}}}}"',  # no ':' at its end, which is "."
        *(f"ENV {name}={_quoted(value)}" for name, value in _variables(workload).items()),
        *(f"ENV {name}={_expanded(name, value)}" for name, value in _own(workload)),
        f"USER {UID}:{UID}",
    ]
    if workload.service is not None:
        check = ["python3", f"{OURS}/quarterdeck_ranks.py", "--ready", workload.service.ready]
        lines += [
            f"EXPOSE {PORT}",
            f"HEALTHCHECK --interval=5s --timeout=5s --start-period={workload.service.start_within:g}s "
            f"CMD {json.dumps(check)}",
        ]
    lines += ["STOPSIGNAL SIGTERM", "ENTRYPOINT []", f"CMD {json.dumps(workload.words())}"]
    return "\n".join(lines) + "\n"


def ignore_file() -> str:
    """Nothing but what the Containerfile copies is sent to a build."""
    return "".join(["*\n", *(f"!{name}\n" for name in CONTEXT)])


def check_pinned(base: str, requires: str | None) -> None:
    """Raises InvalidInput that names what is not pinned."""
    if not is_pinned(base):
        raise InvalidInput(
            f"--base: {base} has no digest, so that it may be another image tomorrow",
            "Give NAME@sha256:..., which `skopeo inspect` or `podman image inspect` shows, or allow it "
            "with --unpinned.",
        )
    loose = unpinned(requires or "")
    if loose:
        some = ", ".join(loose[:3]) + (f" and {len(loose) - 3} more" if len(loose) > 3 else "")
        raise InvalidInput(
            f"requirements: not pinned: {some}",
            "Write name==version (`pip-compile`, `uv pip compile` or `pip freeze` do), or allow it with "
            "--unpinned.",
        )


def _wheels(requirements: str) -> list[str]:
    """Files of the work folder that the requirements name have to be there when they are installed."""
    names = [
        line.strip().removeprefix("./")
        for line in requirements.splitlines()
        if _LOCAL.fullmatch(line.strip())
    ]
    # pip counts relative names from the folder in which it runs.
    return [
        *(f"COPY app/{name} /tmp/{name}" for name in names),
        *(["WORKDIR /tmp"] if names else []),
    ]


def _variables(workload: Workload) -> dict[str, str]:
    """What a rank finds in the cluster, as far as it means something elsewhere."""
    job = workload.job
    found = {
        "HOME": APP,
        "PYTHONUNBUFFERED": "1",
        "QD_PARAMS": json.dumps(dict(job.params)),
        **{f"QD_MODEL_{name.upper()}": path for name, path in workload.models.items()},
    }
    if job.seed is not None:
        found["QD_SEED"] = str(job.seed)
    if len(workload.models) == 1:
        (found["QD_MODEL"],) = workload.models.values()
    if workload.service is not None:
        found |= {"HOST": "0.0.0.0", "PORT": str(PORT)}  # noqa: S104 - a container's own network
    return found


def _own(workload: Workload) -> Sequence[tuple[str, str]]:
    return [(name, value) for name, value in workload.job.env.items() if value is not None]


def _quoted(value: str) -> str:
    """As a Containerfile takes it whole: in double quotes nothing but `\\`, `"` and `$` means more."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def _expanded(name: str, value: str) -> str:
    """`$NAME` in the value of NAME is what the image has; another `$` is itself."""
    if name == "PYTHONPATH" and not re.search(r"\$(PYTHONPATH\b|\{PYTHONPATH\})", value):
        value = f"{value}:$PYTHONPATH"  # our helper stays importable
    own = re.compile(rf"\$(?:{name}\b|\{{{name}\}})")
    parts = own.split(value)
    return '"' + f"${{{name}}}".join(_quoted(part)[1:-1] for part in parts) + '"'


__all__ = ["Plan", "check_pinned", "containerfile", "ignore_file", "is_pinned", "unpinned"]
