#!/bin/sh
# From a model in production to one that answers requests, and how a slower one comes back by itself.
#
#   deploy.sh     after release.sh
#
# QD and PYTHON name the programs.
set -eu
here=$(dirname "$0")
qd=${QD:-qd}
python=${PYTHON:-python}
files=$(mktemp -d)
asking=
trap 'if [ -n "$asking" ]; then kill "$asking" 2>/dev/null || true; fi; rm -rf "$files"' EXIT

echo "--- digits@production answers requests"
"$qd" deploy digits@production --cpus 0.5 --wait --python "$python"
url=$("$qd" deployments digits --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)[0]["url"])')
"$python" "$here/ask.py" "$url" --show --requests 200 --write "$files/request.json"
"$qd" predict digits "$files/request.json"

echo "--- a version that answers the same, from 4,000 copies of each image"
"$qd" model pull digits@production "$files/now"
"$python" "$here/augment.py" "$(find "$files/now" -name '*.onnx')" "$files/augmented.onnx"
candidate=$("$qd" model import "$files/augmented.onnx" digits)
"$qd" model approve "$candidate" --yes --reason "as accurate as the one before"
"$python" "$here/ask.py" "$url" --requests 1000000 &
asking=$!
if "$qd" deploy "$candidate" --cpus 0.5 --canary 20,50 --rest 5s --least 50 --wait --python "$python"; then
    echo "$candidate was promoted, which it must not be" >&2
    exit 1
else
    code=$?
    echo "--- back by itself: qd deploy ended with exit code $code"
    [ "$code" -eq 1 ] || exit "$code"
fi
kill "$asking"
wait "$asking" # no request failed
asking=
"$qd" deployments digits
