"""`resume: workdir` between hosts: what an attempt wrote goes along, unless its host is gone."""

from __future__ import annotations

import pytest

from tests.cluster.fleet import GATE, Fleet
from tests.waiting import until

SCRIPT = f"""
if [ -e snapshot ]; then echo found $(cat snapshot) $(ls out); exit 0; fi
mkdir out; echo 7 > snapshot; echo x > out/a; ln -s /nowhere out/link; echo wrote
while [ ! -e {GATE} ]; do sleep 0.1; done
exit 1
"""


def begin(fleet: Fleet) -> tuple[str, str]:
    """A job that has written, and where."""
    for host in fleet.network.hosts:
        (host.folder / "tmp" / "gate").unlink(missing_ok=True)
    job = fleet.submit(SCRIPT, nodes=1, max_restarts=1, resume="workdir", lease=8.0)
    until(lambda: "wrote" in fleet.log(job, 1, 0), "the first attempt to write")
    (node,) = fleet.ranks(job)
    return job, node


def test_it_goes_along_to_another_host(fleet: Fleet) -> None:
    job, node = begin(fleet)
    fleet.client.act(f"/v1/nodes/{node}/drain", {})
    fleet.open_gate()
    view = fleet.wait(job)
    fleet.client.act(f"/v1/nodes/{node}/undrain", {})
    assert view["state"] == "SUCCEEDED", fleet.story(job)
    assert list(fleet.ranks(job, 2)) != [node]
    assert fleet.log(job, 2, 0).split() == ["found", "7", "a", "link"]
    assert f"attempt 2 begins with what {job}.1 wrote on {node}: 3 files" in fleet.story(job)


@pytest.mark.slow
def test_a_host_that_is_gone_is_told_of(fleet: Fleet) -> None:
    job, node = begin(fleet)
    fleet.host(node).power_off()
    until(lambda: "wrote" in fleet.log(job, 2, 0), "the second attempt", patience=60)
    assert f"what {job}.1 wrote in its work folder on {node} cannot be had" in fleet.story(job)
    fleet.open_gate()
    fleet.wait(job)
    fleet.join_again(fleet.host(node))
