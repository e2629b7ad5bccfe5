"""One sentence from what pip 23 and later print; recorded, and shortened where pip repeats itself."""

from __future__ import annotations

import pytest

from agents.node.staging.pipsaid import reason

NONE = "ERROR: No matching distribution found for"
FITS = "ERROR: Could not find a version that satisfies the requirement"


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (f"Looking in indexes: x\n{FITS} nosuch==9.9 (from versions: none)\n{NONE} nosuch==9.9",
         "no such package nosuch==9.9"),
        (f"{FITS} six==99.0 (from versions: 0.9.0, 1.15.0, 1.16.0, 1.17.0)\n{NONE} six==99.0",
         "no version fits six==99.0; the newest are 1.15.0, 1.16.0, 1.17.0"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /x\n"
         f"{FITS} six (from versions: none)\n{NONE} six",
         "the package index cannot be reached (looking for six)"),
        ("ERROR: Invalid requirement: 'foo bar' (from line 1 of r.txt)", "'foo bar' is not a requirement"),
        ("ERROR: Cannot install six==1.15.0 and six==1.16.0 because these package versions have "
         "conflicting dependencies.\n\nThe conflict is caused by:\n ...\nERROR: ResolutionImpossible: for",
         "six==1.15.0 and six==1.16.0 exclude each other"),
        ("ERROR: Could not open requirements file: [Errno 2] No such file or directory: 'other.txt'",
         "No such file or directory: 'other.txt'"),
        ("Processing ./bad\n  error: subprocess-exited-with-error\n  x Preparing metadata did not run\n"
         "  | exit code: 1\n      RuntimeError: needs CUDA\n      [end of output]\n"
         "  note: This error originates from a subprocess\nerror: metadata-generation-failed\n",
         "./bad could not be built: RuntimeError: needs CUDA"),
        ("/usr/bin/python3: No module named pip\n", "/usr/bin/python3: No module named pip"),
        ("", "pip said nothing"),
    ],
)  # fmt: skip
def test_why_pip_failed(output: str, sentence: str) -> None:
    assert reason(output) == sentence
