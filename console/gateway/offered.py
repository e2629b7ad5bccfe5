"""Which commands the gateway offers. One that is not here is refused, so a new one has to be thought of.

Left out is what acts on the gateway's own machine (`up`, `join`, `web`, `context`, ...). What a command
changes on the cluster is for the controller to refuse, by the person's role.
"""

from __future__ import annotations

from jobs.base.errors import NotAllowed

_NAMES = (
    "status",
    "prune",
    "events",
    "submit",
    *("jobs", "job", "logs", "metrics", "wait", "cancel", "retry", "explain", "stacks"),
    "debug",
    *("files", "cat", "exec", "attach", "forward", "profile", "runs", "compare"),
    *("sweep", "sweeps", "trials", "best", "export", "export sweep"),
    *("sweep-stop", "sweep-pause", "sweep-resume", "sweep-extend"),
    *("trial-prune", "trial-pin", "trial-rerun"),
    *("models", "model", "model register", "model show", "model diff", "model verify"),
    *("model approve", "model reject", "model revoke"),
    *("model alias", "model tag", "model archive"),
    *("edge", "edge status", "edge rollback"),
    *("deploy", "deployments", "rollout", "rollback", "scale", "undeploy"),
    *("pipelines", "pipeline", "pipeline show", "pipeline graph"),
    *("pipeline cancel", "pipeline retry"),
    "audit",
    *("nodes", "node", "drain", "undrain", "forget", "top"),
)
OFFERED = frozenset(_NAMES)


def check(command: str) -> None:
    """Raise NotAllowed when a command is not offered."""
    if command not in OFFERED:
        raise NotAllowed(
            f"`qd {command}` is not offered through the gateway",
            f"There are {', '.join(sorted(OFFERED))}.",
        )
