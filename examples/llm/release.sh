#!/bin/sh
# From a fine-tuning to a chat behind an OpenAI-compatible program, and a worse one that the gate stops.
#
#   release.sh ENVIRONMENT     a virtual environment with torch, transformers and peft
#
# QD names the program.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
qd=${QD:-qd}

echo "--- fine-tuned, judged, registered"
job=$("$qd" submit "$here/job.yaml" --python "$1" --wait | head -n 1)
version=$("$qd" model register "$job" llm)
"$qd" gate "$here/gate.yaml" "$version"
"$qd" model approve "$version" --yes --reason "the gate holds"

echo "--- served"
"$qd" deploy "$here/chat.yaml" --model "$version" --python "$1" --wait
url=$("$qd" deployments chat --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["url"])')
curl --silent --show-error --fail "$url/v1/chat/completions" \
    -H 'Content-Type: application/json' \
    -d '{"model": "llm", "messages": [{"role": "user", "content": "What is 3 + 4?"}]}'
echo

echo "--- one that has hardly learnt"
worse=$("$qd" submit "$here/worse.yaml" --python "$1" --wait | head -n 1)
candidate=$("$qd" model register "$worse" llm)
if "$qd" gate "$here/gate.yaml" "$candidate"; then
    echo "the gate let $candidate pass, which it must not" >&2
    exit 1
fi
if "$qd" deploy "$here/chat.yaml" --model "$candidate" --python "$1"; then
    echo "$candidate was deployed, which it must not be" >&2
    exit 1
fi
