"""As whom ranks run."""

from __future__ import annotations

import pytest

from jobs.base.errors import NotAllowed
from jobs.spec.job import JobSpec
from jobs.spec.runas import NODE, SUBMITTER, RanksAs

SHARED = RanksAs(SUBMITTER)


def spec(**more: object) -> JobSpec:
    return JobSpec.from_json({"command": ["true"], **more})


@pytest.mark.parametrize("text", ["", "node", " node "])
def test_without_a_setting_ranks_run_as_the_node(text: str) -> None:
    chosen, wrong = RanksAs.from_env({"QD_RANKS_AS": text})
    assert (chosen.who, chosen.separate, wrong) == (NODE, False, "")
    assert chosen.account("ada", "ada") is None
    chosen.check(spec(kind="ray"))


def test_a_setting_that_nobody_can_read_separates() -> None:
    chosen, wrong = RanksAs.from_env({"QD_RANKS_AS": "the submitter!"})
    assert chosen == SHARED
    assert "'the submitter!', which is taken for 'submitter'" in wrong


def test_ranks_are_the_submitters_or_one_accounts() -> None:
    assert SHARED.account("ada", "ada") == "ada"
    assert SHARED.account("ada", "pipeline nightly") == "ada"
    assert RanksAs("train").account("ada", "ada") == "train"
    assert RanksAs("train").account(None, "mira") == "train"
    with pytest.raises(NotAllowed, match="mira has no account on the head"):
        SHARED.account(None, "mira")


def test_root_is_refused_unless_it_is_allowed() -> None:
    for chosen in (SHARED, RanksAs("root")):
        with pytest.raises(NotAllowed, match="never run as root"):
            chosen.account("root", "root")
    allowed, _ = RanksAs.from_env({"QD_RANKS_AS": "submitter", "QD_RANKS_AS_ROOT": "1"})
    assert allowed.account("root", "root") == "root"


def test_what_can_only_run_as_the_node_is_refused() -> None:
    SHARED.check(spec())
    with pytest.raises(NotAllowed, match="kind: ray"):
        SHARED.check(spec(kind="ray"))
    with pytest.raises(NotAllowed, match="image:"):
        SHARED.check(spec(image="docker.io/library/debian:12"))
