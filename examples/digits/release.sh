#!/bin/sh
# From a training that has succeeded to a model in production, and how a worse one is stopped.
#
#   release.sh [JOB]     JOB: the training (last by default)
#
# QD and PYTHON name the programs; QD_SUBMIT holds more options for `qd submit`.
set -eu
here=$(dirname "$0")
qd=${QD:-qd}
python=${PYTHON:-python}

echo "--- a version of what ${1:-last} has left"
version=$("$qd" model register "${1:-last}" digits)
"$qd" model show "$version"

echo "--- through the gate, approved, into production"
"$qd" gate "$here/gate.yaml" "$version"
"$qd" model approve "$version" --yes --reason "the gate holds"
"$qd" model alias "$version" production

echo "--- a deliberately worse model"
# shellcheck disable=SC2086
worse=$("$qd" submit "$here/worse.yaml" --python "$python" --wait ${QD_SUBMIT:-} | head -n 1)
candidate=$("$qd" model register "$worse" digits)
if "$qd" gate "$here/gate.yaml" "$candidate"; then
    echo "the gate let $candidate pass, which it must not" >&2
    exit 1
else
    code=$?
    echo "--- stopped: qd gate ended with exit code $code"
    [ "$code" -eq 1 ] || exit "$code"
fi
"$qd" models digits
"$qd" audit verify
