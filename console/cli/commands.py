"""Which commands there are, and where: the table that lets `qd --help` import none of them.

A test holds `help` equal to the first line of each function's docstring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Args:
        place: `module:function`.
        help: one line, the first of the function's docstring.
        section: heading under which `qd --help` lists it.
        takes_command: what follows `--` is a command line of the user's, not arguments of ours.
        verbs: commands below this one, as `add` of `qd data add`. The function is called only without one.
        here: it acts on the machine on which it is typed, and refuses where another cluster is chosen.
    """

    place: str
    help: str
    section: str
    takes_command: bool = False
    here: bool = False
    verbs: Mapping[str, Entry] = field(default_factory=dict)


_CLUSTER, _JOBS, _FLEET, _SWEEPS = "Cluster", "Jobs", "Nodes", "Sweeps"
_DATA, _SERVICES, _PIPELINES, _MODELS = "Data", "Services", "Pipelines", "Models"

COMMANDS: dict[str, Entry] = {
    "up": Entry("console.cli.cluster:up", "Start a cluster on this machine.", _CLUSTER, here=True),
    "down": Entry(
        "console.cli.cluster:down", "Stop the cluster on this machine.", _CLUSTER, here=True
    ),
    "join": Entry("console.cli.hosts:join", "Add this host to a cluster.", _CLUSTER, here=True),
    "leave": Entry(
        "console.cli.hosts:leave", "Remove this host from its cluster.", _CLUSTER, here=True
    ),
    "status": Entry(
        "console.cli.status:status", "Show the cluster's health at a glance.", _CLUSTER
    ),
    "doctor": Entry(
        "console.cli.doctor:doctor", "Check every part, and say how to fix what is wrong.", _CLUSTER
    ),
    "prune": Entry(
        "console.cli.prune:prune", "Delete stored files that nothing references.", _CLUSTER
    ),
    "backup": Entry(
        "console.cli.backup:backup",
        "Copy registry, blobs and logs, also while the cluster runs.",
        _CLUSTER,
    ),
    "restore": Entry(
        "console.cli.backup:restore",
        "Replace this machine's state with a backup.",
        _CLUSTER,
        here=True,
    ),
    "import": Entry(
        "console.cli.export:import_",
        "Load an exported registry into an empty database.",
        _CLUSTER,
        here=True,
    ),
    "context": Entry(
        "console.cli.context:context", "Name clusters on other hosts, and choose one.", _CLUSTER
    ),
    "events": Entry("console.cli.events:events", "Show what happened, newest last.", _CLUSTER),
    "web": Entry(
        "console.cli.web:web", "Serve the console to a browser on this machine.", _CLUSTER
    ),
    "prometheus": Entry(
        "console.cli.prometheus:prometheus",
        "Print metrics for Prometheus, or serve them.",
        _CLUSTER,
    ),
    "schema": Entry(
        "console.cli.schema:schema",
        "Print the JSON Schema of job or sweep files, for editors.",
        _JOBS,
    ),
    "gateway": Entry(
        "console.cli.gateway:gateway",
        "Offer the console and the commands over SSH.",
        _CLUSTER,
        here=True,
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
    "metrics": Entry(
        "console.cli.metrics:metrics", "Show the metrics that a job has logged.", _JOBS
    ),
    "files": Entry("console.cli.files:files", "List what a job wrote.", _JOBS),
    "pull": Entry("console.cli.files:pull", "Copy what a job wrote to this machine.", _JOBS),
    "cat": Entry("console.cli.files:cat", "Print one file that a job wrote.", _JOBS),
    "wait": Entry(
        "console.cli.wait:wait", "Wait for jobs to end, and exit with their exit code.", _JOBS
    ),
    "cancel": Entry(
        "console.cli.jobs:cancel", "Cancel jobs: SIGTERM, then SIGKILL after the grace time.", _JOBS
    ),
    "retry": Entry("console.cli.jobs:retry", "Run an ended job again.", _JOBS),
    "explain": Entry(
        "console.cli.explain:explain", "Say why a job waits, or why it failed.", _JOBS
    ),
    "stacks": Entry(
        "console.cli.explain:stacks",
        "Show the Python stacks of all ranks, equal ones together.",
        _JOBS,
    ),
    "debug": Entry(
        "console.cli.debug:debug",
        "Collect a job's diagnostics in one archive.",
        _JOBS,
    ),
    "runs": Entry(
        "console.cli.runs:runs",
        "List runs with parameters and metrics; filter and sort them.",
        _JOBS,
    ),
    "report": Entry(
        "console.cli.report:report", "Write a page about runs, sweeps, pipelines or models.", _JOBS
    ),
    "compare": Entry(
        "console.cli.runs:compare",
        "Show how runs differ: code, parameters, data, metrics.",
        _JOBS,
    ),
    "reproduce": Entry(
        "console.cli.runs:reproduce",
        "Run a job again as it was, and compare the metrics.",
        _JOBS,
    ),
    "exec": Entry(
        "console.cli.shell:exec_",
        "Run a command next to a rank, in its environment.",
        _JOBS,
        takes_command=True,
    ),
    "attach": Entry(
        "console.cli.shell:attach", "Open a shell next to a rank; ctrl-] leaves it running.", _JOBS
    ),
    "forward": Entry(
        "console.cli.forward:forward",
        "Forward a port on this machine to one that a job listens on.",
        _JOBS,
    ),
    "profile": Entry(
        "console.cli.profile:profile", "Sample where a rank spends its time, with py-spy.", _JOBS
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
        "console.cli.sweeps:pause",
        "Pause a sweep: no new trials start; open ones continue.",
        _SWEEPS,
    ),
    "sweep-resume": Entry("console.cli.sweeps:resume", "Resume a paused sweep.", _SWEEPS),
    "sweep-extend": Entry(
        "console.cli.sweeps:extend",
        "Change the limits of a sweep, even of one that is over.",
        _SWEEPS,
    ),
    "trial-prune": Entry(
        "console.cli.sweeps:prune", "Stop one trial of a sweep, as its pruner would.", _SWEEPS
    ),
    "trial-pin": Entry(
        "console.cli.sweeps:pin", "Keep the pruner from ending a trial of a sweep.", _SWEEPS
    ),
    "trial-rerun": Entry(
        "console.cli.sweeps:rerun", "Run a trial's point again, as a new trial.", _SWEEPS
    ),
    "data": Entry(
        "console.cli.data:data",
        "List data sets; add, show, compare, check and pull versions.",
        _DATA,
        verbs={
            "add": Entry(
                "console.cli.data:add",
                "Add a version of a data set: its files as they are now.",
                _DATA,
            ),
            "show": Entry(
                "console.cli.data:show_version",
                "Show a version: its files, and the columns of its tables.",
                _DATA,
            ),
            "diff": Entry(
                "console.cli.data:diff",
                "Show how two versions differ: files, and columns of tables.",
                _DATA,
            ),
            "expect": Entry(
                "console.cli.data:expect",
                "Propose expectations from a version's contents, for you to edit.",
                _DATA,
            ),
            "check": Entry(
                "console.cli.data:check",
                "Check a data set against expectations; exit code 1 when it fails.",
                _DATA,
            ),
            "pull": Entry(
                "console.cli.data:pull", "Copy a version to this machine, verified.", _DATA
            ),
        },
    ),
    "features": Entry(
        "console.cli.features:features",
        "List features; add and show versions, build data with them.",
        _DATA,
        verbs={
            "add": Entry(
                "console.cli.features:add",
                "Add a version of features: a declaration and its Python file.",
                _DATA,
            ),
            "show": Entry(
                "console.cli.features:show_version",
                "Show a version: what it takes, what it gives, and what it joins.",
                _DATA,
            ),
            "build": Entry(
                "console.cli.features:build",
                "Build a version of a data set, the features of another's rows.",
                _DATA,
            ),
        },
    ),
    "models": Entry(
        "console.cli.models:models", "List models and their versions, the newest first.", _MODELS
    ),
    "model": Entry(
        "console.cli.models:model",
        "Register, show, approve and fetch versions of models.",
        _MODELS,
        verbs={
            "register": Entry(
                "console.cli.modelfiles:register",
                "Make a version of a run's outputs; prints its id.",
                _MODELS,
            ),
            "import": Entry(
                "console.cli.modelfiles:take_in",
                "Make a version of files on this machine; prints its id.",
                _MODELS,
            ),
            "show": Entry(
                "console.cli.models:show_one",
                "Show a version: where it comes from, its gate, who approved it.",
                _MODELS,
            ),
            "diff": Entry(
                "console.cli.modelfiles:diff",
                "Show what differs between two versions: metrics, origin, files.",
                _MODELS,
            ),
            "lineage": Entry(
                "console.cli.models:lineage",
                "Draw what a version was made from and what became of it.",
                _MODELS,
            ),
            "card": Entry(
                "console.cli.models:card",
                "Write a model card in Markdown from the records.",
                _MODELS,
            ),
            "approve": Entry(
                "console.cli.decisions:approve",
                "Approve a version, by its digest and its gate's result.",
                _MODELS,
            ),
            "reject": Entry(
                "console.cli.decisions:reject",
                "Reject a version; it gets no protected alias.",
                _MODELS,
            ),
            "revoke": Entry(
                "console.cli.decisions:revoke",
                "Revoke an approval or a rejection.",
                _MODELS,
            ),
            "approvals": Entry(
                "console.cli.decisions:approvals",
                "Write signed approvals as files that `ssh-keygen -Y verify` checks.",
                _MODELS,
            ),
            "alias": Entry(
                "console.cli.models:alias",
                "Point NAME@ALIAS to a version.",
                _MODELS,
            ),
            "tag": Entry(
                "console.cli.models:tag",
                "Set tags of a version.",
                _MODELS,
            ),
            "archive": Entry(
                "console.cli.models:archive",
                "Archive a version; its files remain.",
                _MODELS,
            ),
            "pull": Entry(
                "console.cli.modelfiles:pull",
                "Fetch all files of a version, each checked against its digest.",
                _MODELS,
            ),
            "verify": Entry(
                "console.cli.modelfiles:verify",
                "Read all files of a version again; exit code 1 when one was changed.",
                _MODELS,
            ),
            "policy": Entry(
                "console.cli.models:policy",
                "Show or set what versions of a model need; see docs/models.md.",
                _MODELS,
            ),
        },
    ),
    "evaluate": Entry(
        "console.cli.evaluations:evaluate",
        "Measure a version on a hold-out version of a data set.",
        _MODELS,
    ),
    "evaluations": Entry(
        "console.cli.evaluations:evaluations",
        "List evaluations of models, the newest first.",
        _MODELS,
    ),
    "evaluation": Entry(
        "console.cli.evaluations:evaluation",
        "Show all results of an evaluation.",
        _MODELS,
    ),
    "gate": Entry(
        "console.cli.gates:gate",
        "Check a version against a gate file; exit code 1 when it fails.",
        _MODELS,
    ),
    "story": Entry(
        "console.cli.story:story",
        "Show what happened to a model, when, why, and who did it.",
        _MODELS,
    ),
    "audit": Entry(
        "console.cli.audit:audit",
        "Show who did what, from a tamper-evident log.",
        _MODELS,
    ),
    "edge": Entry(
        "console.cli.edges:edge",
        "Hosts that get models over ssh.",
        _SERVICES,
        verbs={
            "status": Entry(
                "console.cli.edges:status",
                "Ask each host what it has; exit code 1 for drift.",
                _SERVICES,
            ),
            "rollback": Entry(
                "console.cli.edges:rollback",
                "Return all hosts of a fleet to what they had before.",
                _SERVICES,
            ),
        },
    ),
    "deploy": Entry(
        "console.cli.services:deploy", "Deploy a service, at once or step by step.", _SERVICES
    ),
    "deployments": Entry(
        "console.cli.services:deployments",
        "List services: versions, traffic, replicas, rollouts.",
        _SERVICES,
    ),
    "feedback": Entry(
        "console.cli.monitors:feedback",
        "Record the ground truth of requests, by their ids.",
        _SERVICES,
    ),
    "monitor": Entry(
        "console.cli.monitors:monitor",
        "Compare a service's requests with a reference, to find drift.",
        _SERVICES,
    ),
    "rollout": Entry(
        "console.cli.services:rollout",
        "Steer a rollout: pause, resume, abort or promote.",
        _SERVICES,
    ),
    "rollback": Entry(
        "console.cli.services:rollback",
        "Send all traffic to the previous version again.",
        _SERVICES,
    ),
    "scale": Entry(
        "console.cli.scaling:scale",
        "Set the number of replicas, or bounds to scale between.",
        _SERVICES,
    ),
    "undeploy": Entry(
        "console.cli.services:undeploy",
        "Remove a service; requests in progress are finished.",
        _SERVICES,
    ),
    "service": Entry(
        "console.cli.servicekeys:service",
        "Manage a service's API keys.",
        _SERVICES,
        verbs={
            "key": Entry(
                "console.cli.servicekeys:key",
                "Create, list and revoke API keys of a service.",
                _SERVICES,
                verbs={
                    "add": Entry(
                        "console.cli.servicekeys:add",
                        "Create a key, and print it, this once.",
                        _SERVICES,
                    ),
                    "list": Entry(
                        "console.cli.servicekeys:list_keys",
                        "List keys, including revoked ones.",
                        _SERVICES,
                    ),
                    "revoke": Entry(
                        "console.cli.servicekeys:revoke",
                        "Revoke a key at once.",
                        _SERVICES,
                    ),
                },
            ),
        },
    ),
    "predict": Entry(
        "console.cli.services:predict",
        "Send one request to a service, or predict whole files.",
        _SERVICES,
    ),
    "export": Entry(
        "console.cli.export:export",
        "Export sweeps, and services, jobs and models for elsewhere.",
        _SERVICES,
        verbs={
            "sweep": Entry(
                "console.cli.export:sweep",
                "Write the trials of a sweep as CSV, JSON or Parquet.",
                _SERVICES,
            ),
            "image": Entry(
                "console.cli.exports:image",
                "Write a container image's build folder, and build it.",
                _SERVICES,
            ),
            "kubernetes": Entry(
                "console.cli.exports:kubernetes",
                "Write Kubernetes manifests of a service or a job.",
                _SERVICES,
            ),
            "kserve": Entry(
                "console.cli.exports:kserve",
                "Write a KServe InferenceService of a service or a model.",
                _SERVICES,
            ),
            "kuberay": Entry(
                "console.cli.exports:kuberay",
                "Write a KubeRay RayJob or RayService.",
                _SERVICES,
            ),
        },
    ),
    "pipeline": Entry(
        "console.cli.pipelines:pipeline",
        "Run pipelines, show their steps, and steer them.",
        _PIPELINES,
        verbs={
            "run": Entry(
                "console.cli.pipelines:run",
                "Run a pipeline: steps that depend on each other.",
                _PIPELINES,
            ),
            "show": Entry(
                "console.cli.pipelines:show",
                "Show the steps of a run, with their jobs.",
                _PIPELINES,
            ),
            "graph": Entry(
                "console.cli.pipelines:graph",
                "Draw the steps of a run, each below those that it needs.",
                _PIPELINES,
            ),
            "wait": Entry(
                "console.cli.pipelines:wait",
                "Wait until a run is over; exit code 1 unless it succeeded.",
                _PIPELINES,
            ),
            "cancel": Entry(
                "console.cli.pipelines:cancel",
                "Cancel a run's running steps, and start no more.",
                _PIPELINES,
            ),
            "retry": Entry(
                "console.cli.pipelines:retry",
                "Run again the steps that did not succeed in a run that is over.",
                _PIPELINES,
            ),
        },
    ),
    "pipelines": Entry(
        "console.cli.pipelines:pipelines", "List runs of pipelines, newest first.", _PIPELINES
    ),
    "schedule": Entry(
        "console.cli.schedules:schedule",
        "Run pipelines, jobs and sweeps automatically.",
        _PIPELINES,
        verbs={
            "add": Entry(
                "console.cli.schedules:add",
                "Add a schedule: a file, and when it runs.",
                _PIPELINES,
            ),
            "show": Entry(
                "console.cli.schedules:show",
                "Show a schedule: its next five firings and latest results.",
                _PIPELINES,
            ),
            "pause": Entry(
                "console.cli.schedules:pause",
                "Pause a schedule; what it has started continues.",
                _PIPELINES,
            ),
            "resume": Entry(
                "console.cli.schedules:resume",
                "Resume a schedule from now on.",
                _PIPELINES,
            ),
            "run": Entry(
                "console.cli.schedules:run",
                "Run a schedule once, now.",
                _PIPELINES,
            ),
            "rm": Entry(
                "console.cli.schedules:rm",
                "Remove a schedule; the pipelines that it started remain.",
                _PIPELINES,
            ),
        },
    ),
    "schedules": Entry(
        "console.cli.schedules:schedules",
        "List schedules, with the next firing of each.",
        _PIPELINES,
    ),
    "alert": Entry(
        "console.cli.alerts:alert",
        "Manage alerts: acknowledge, silence, test channels.",
        _PIPELINES,
        verbs={
            "ack": Entry(
                "console.cli.alerts:ack",
                "Acknowledge an alert, so that it is not repeated.",
                _PIPELINES,
            ),
            "silence": Entry(
                "console.cli.alerts:silence",
                "Silence matching alerts for a while; shell patterns are allowed.",
                _PIPELINES,
            ),
            "test": Entry(
                "console.cli.alerts:test",
                "Send a test message to one channel, or to all.",
                _PIPELINES,
            ),
        },
    ),
    "alerts": Entry("console.cli.alerts:alerts", "List open alerts, newest first.", _PIPELINES),
    "nodes": Entry("console.cli.nodes:nodes", "List the nodes and their GPUs.", _FLEET),
    "node": Entry("console.cli.nodes:node", "Show one node, GPU by GPU.", _FLEET),
    "drain": Entry(
        "console.cli.nodes:drain", "Start no new jobs on a node; running ones continue.", _FLEET
    ),
    "undrain": Entry(
        "console.cli.nodes:undrain", "Start jobs on a node again; also lifts a quarantine.", _FLEET
    ),
    "confirm-dead": Entry(
        "console.cli.nodes:confirm_dead",
        "Confirm that a LOST node is down; its jobs restart now.",
        _FLEET,
    ),
    "forget": Entry("console.cli.nodes:forget", "Remove a node that will not come back.", _FLEET),
    "maintenance": Entry(
        "console.cli.maintenance:maintenance",
        "Keep everything running while the head is away.",
        _FLEET,
        verbs={
            "head": Entry(
                "console.cli.maintenance:head",
                "Let everything run on while the head is away, for instance during a restart.",
                _FLEET,
            ),
            "end": Entry(
                "console.cli.maintenance:end",
                "End the maintenance: jobs are started again.",
                _FLEET,
            ),
        },
    ),
    "strays": Entry(
        "console.cli.strays:strays",
        "List attempts that nodes hold and the registry does not know.",
        _FLEET,
    ),
    "top": Entry("console.cli.top:top", "Watch nodes, GPUs and jobs in a plain table.", _FLEET),
}


def every() -> dict[str, Entry]:
    """All commands by what is typed for them, those below another one too: "data add"."""
    return _below("", COMMANDS)


def _below(noun: str, verbs: Mapping[str, Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name, entry in verbs.items():
        found |= {noun + name: entry, **_below(f"{noun}{name} ", entry.verbs)}
    return found
