#!/bin/sh
# The whole loop on the digits, with no step by hand but the approvals: data is ingested, checked, trained
# on by two ranks, registered, gated, approved, canaried and kept. Then a newer version of the data starts
# the pipeline by itself, and is kept; a poisoned one is stopped by the gate; a model that is right, but
# slow, comes back from its canary; and when what callers send has faded, the loop trains again by itself.
#
# QD and PYTHON name the programs; the training runs in the active virtual environment. The service stays up,
# the trigger does not.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
qd=${QD:-qd}
python=${PYTHON:-python}
files=$(mktemp -d)
asking=
trap 'if [ -n "$asking" ]; then kill "$asking" 2>/dev/null || true; fi; rm -rf "$files"' EXIT

# read_json EXPRESSION: of the document `d` on stdin
read_json() { "$python" -c "import json, sys; d = json.load(sys.stdin); print($1)"; }

# of_step PIPELINE STEP FIELD: the state of a step, or what it has left
of_step() { "$qd" pipeline show "$1" --json | read_json "next(t for t in d['tasks'] if t['step'] == '$2')$3"; }

# approve PIPELINE: by hand, once the gate has let its version pass
approve() {
    while [ "$(of_step "$1" approval "['state']")" = WAITING ]; do sleep 1; done
    "$qd" pipeline graph "$1"
    [ "$(of_step "$1" approval "['state']")" = RUNNING ] || return 0
    "$qd" model approve "$(of_step "$1" gate "['left']['model']")" --yes --reason "the gate holds"
}

# ends PIPELINE STATE STEP: it ends, and this step of it is then in this state
ends() {
    "$qd" pipeline wait "$1" || true
    "$qd" pipeline show "$1"
    found=$(of_step "$1" "$3" "['state']")
    [ "$found" = "$2" ] || { echo "$3 of $1 is $found, not $2" >&2; exit 1; }
}

# fired SCHEDULE CAUSE: the pipeline that was started because of that
fired() {
    started=
    waited=0
    while [ -z "$started" ]; do
        [ "$waited" -lt 600 ] || { echo "nothing was started because of $2" >&2; exit 1; }
        waited=$((waited + 1))
        sleep 0.5
        started=$("$qd" schedule show "$1" --json | read_json "next((f['pipeline'] for f in d['firings'] if '$2' in f['cause'] and f['pipeline']), '')")
    done
    echo "$started"
}

# arrives [OPTIONS]: a new version of the data; gives the pipeline that it starts by itself
arrives() {
    "$python" "$here/ingest.py" "$files/digits.csv" "$@"
    fired digits-loop "$("$qd" data add digits "$files/digits.csv")"
}

# ask [OPTIONS]: callers, until the next ones
ask() {
    if [ -n "$asking" ]; then
        kill "$asking"
        wait "$asking" # no request failed
        asking=
    fi
    if [ $# -gt 0 ]; then
        "$python" "$here/../ask.py" "$url" --requests 100000000 --callers 1 "$@" &
        asking=$!
    fi
}

echo "--- the first data: ingested, checked, trained on, gated, approved, deployed"
"$python" "$here/ingest.py" "$files/digits.csv" --rows 900
"$qd" data add digits "$files/digits.csv" --note "the first 900 scans"
"$qd" pipeline run "$here/loop.yaml" --dry-run
first=$("$qd" pipeline run "$here/loop.yaml")
approve "$first"
ends "$first" SUCCEEDED deploy

url=$("$qd" deployments digits --json | read_json "d[0]['url']")
ask --callers 1

echo "--- more data arrives: the loop runs by itself, and its canary is kept"
"$qd" schedule add "$here/loop.yaml" --on "data digits" --into data
second=$(arrives)
approve "$second"
ends "$second" SUCCEEDED deploy

echo "--- poisoned data arrives: well-formed, so the check lets it pass, and the gate stops the model"
third=$(arrives --poisoned)
approve "$third"
ends "$third" FAILED gate
"$qd" schedule rm digits-loop

echo "--- a model that is as right, and slow: it comes back from its canary"
fourth=$("$qd" pipeline run "$here/loop.yaml" --set data=digits@2 --set copies=4000)
approve "$fourth"
ends "$fourth" FAILED deploy

echo "--- callers send faded images: the monitor sees it, and the loop trains again by itself"
"$qd" schedule add "$here/loop.yaml" --name again --on "drift digits" --cooldown 1d --set data=digits@2 --set epochs=9
waited=0
while [ -z "$("$qd" monitor digits --history --json | read_json "d['reference'] or ''")" ]; do
    [ "$waited" -lt 150 ] || { echo "the monitor has no reference after 5 min" >&2; exit 1; }
    waited=$((waited + 1))
    sleep 2
done
ask --faded
fifth=$(fired again drifts)
approve "$fifth"
ends "$fifth" SUCCEEDED deploy
"$qd" schedule rm again

ask
"$qd" deployments digits
"$qd" audit verify
"$qd" story digits
