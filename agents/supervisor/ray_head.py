"""`ray start`, without the parts that listen to the world or that nobody here uses.

Ray starts its Ray Client server (remote code execution for whoever connects) and a full dashboard
agent whenever their packages can be imported, and has no switch against it. So in this process, which
does nothing but start Ray, they cannot be. The remaining names are commands of `ray` that we do not
call and that take half a second to import.
"""

from __future__ import annotations

import sys

ABSENT = (
    "grpc",
    "ray.dashboard.optional_deps",
    "ray.dashboard.modules.job.cli",
    "ray.serve.scripts",
    "ray.util.state.state_cli",
)


def main() -> None:
    """Run `ray` with the arguments of this process; ends as `ray` ends."""
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment]  # importing it raises ImportError
    from ray.scripts.scripts import main as ray

    sys.argv[0] = "ray"
    sys.exit(ray())


if __name__ == "__main__":
    main()
