"""Which commands there are, and where: the table that lets `qd --help` import none of them.

A test holds `help` equal to the first line of each function's docstring.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Args:
        place: `module:function`.
        help: one line, the first of the function's docstring.
        section: heading under which `qd --help` lists it.
        takes_command: what follows `--` is a command line of the user's, not arguments of ours.
        here: it acts on the machine on which it is typed, and refuses where another cluster is chosen.
    """

    place: str
    help: str
    section: str
    takes_command: bool = False
    here: bool = False


_CLUSTER, _JOBS, _FLEET, _SWEEPS = "Cluster", "Jobs", "Nodes", "Sweeps"

COMMANDS: dict[str, Entry] = {
    "up": Entry("console.cli.cluster:up", "Start a cluster on this machine.", _CLUSTER, here=True),
    "down": Entry(
        "console.cli.cluster:down", "Stop the cluster on this machine.", _CLUSTER, here=True
    ),
    "join": Entry("console.cli.hosts:join", "Add this host to a cluster.", _CLUSTER, here=True),
    "leave": Entry(
        "console.cli.hosts:leave", "Take this host out of its cluster.", _CLUSTER, here=True
    ),
    "status": Entry(
        "console.cli.status:status", "Say in one look whether the cluster is well.", _CLUSTER
    ),
    "doctor": Entry(
        "console.cli.doctor:doctor", "Check every part, with the fix for what is wrong.", _CLUSTER
    ),
    "prune": Entry(
        "console.cli.prune:prune", "Let go of stored files that nothing refers to.", _CLUSTER
    ),
    "context": Entry(
        "console.cli.context:context", "Name clusters on other hosts, and choose one.", _CLUSTER
    ),
    "events": Entry("console.cli.events:events", "Show what happened, newest last.", _CLUSTER),
    "web": Entry(
        "console.cli.web:web", "Serve the console to a browser on this machine.", _CLUSTER
    ),
    "submit": Entry(
        "console.cli.submit:submit",
        "Submit a job: a file, or a command after `--`.",
        _JOBS,
        takes_command=True,
    ),
    "jobs": Entry("console.cli.jobs:jobs", "List jobs, newest first.", _JOBS),
    "job": Entry("console.cli.jobs:job", "Show everything about one job.", _JOBS),
    "logs": Entry("console.cli.logs:logs", "Print the logs of a job, or follow them.", _JOBS),
    "metrics": Entry("console.cli.metrics:metrics", "Show what a job has logged.", _JOBS),
    "wait": Entry(
        "console.cli.wait:wait", "Wait for jobs to end, and end with their exit code.", _JOBS
    ),
    "cancel": Entry("console.cli.jobs:cancel", "Stop jobs, in order and for good.", _JOBS),
    "retry": Entry("console.cli.jobs:retry", "Run a job that has ended once more.", _JOBS),
    "explain": Entry(
        "console.cli.explain:explain", "Say why a job waits, or why it failed.", _JOBS
    ),
    "stacks": Entry(
        "console.cli.explain:stacks", "Show where every rank is now, equal stacks together.", _JOBS
    ),
    "sweep": Entry(
        "console.cli.sweep:sweep",
        "Start a sweep: many trials of one job.",
        _SWEEPS,
    ),
    "sweeps": Entry("console.cli.sweeps:sweeps", "List sweeps, newest first.", _SWEEPS),
    "trials": Entry("console.cli.sweeps:trials", "List the trials of a sweep.", _SWEEPS),
    "best": Entry(
        "console.cli.sweeps:best",
        "Show the best trials, and which parameters mattered.",
        _SWEEPS,
    ),
    "sweep-stop": Entry(
        "console.cli.sweeps:stop", "Stop a sweep: its open trials are cancelled.", _SWEEPS
    ),
    "sweep-pause": Entry(
        "console.cli.sweeps:pause", "Start no more trials; those that are open go on.", _SWEEPS
    ),
    "sweep-resume": Entry("console.cli.sweeps:resume", "Go on with a paused sweep.", _SWEEPS),
    "sweep-extend": Entry(
        "console.cli.sweeps:extend",
        "Change the limits of a sweep, also of one that is over.",
        _SWEEPS,
    ),
    "trial-prune": Entry(
        "console.cli.sweeps:prune", "Stop one trial of a sweep, as its pruner would.", _SWEEPS
    ),
    "trial-pin": Entry(
        "console.cli.sweeps:pin", "Keep the pruner from ending a trial of a sweep.", _SWEEPS
    ),
    "trial-rerun": Entry(
        "console.cli.sweeps:rerun", "Try the point of a trial once more, as a new trial.", _SWEEPS
    ),
    "export": Entry(
        "console.cli.export:export",
        "Write the trials of a sweep as CSV, JSON or Parquet.",
        _SWEEPS,
    ),
    "nodes": Entry("console.cli.nodes:nodes", "List the nodes and their GPUs.", _FLEET),
    "node": Entry("console.cli.nodes:node", "Show one node, GPU by GPU.", _FLEET),
    "drain": Entry(
        "console.cli.nodes:drain", "Keep new jobs off a node; what runs there runs on.", _FLEET
    ),
    "undrain": Entry(
        "console.cli.nodes:undrain", "Let a node take jobs again; lifts a quarantine too.", _FLEET
    ),
    "forget": Entry(
        "console.cli.nodes:forget", "Take a node that is gone for good off the books.", _FLEET
    ),
    "top": Entry("console.cli.top:top", "Watch nodes, GPUs and jobs in a plain table.", _FLEET),
}
