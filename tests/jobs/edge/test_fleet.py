"""Fleets as people write them: hosts, waves, and what is no host."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.base.errors import InvalidInput
from jobs.edge.fleet import Fleet, Host, load_fleet, of_one


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ssh://shop1/opt/m", Host("shop1", "/opt/m")),
        ("ssh://pi@10.0.0.7:2222/opt/my%20model/", Host("10.0.0.7", "/opt/my model", "pi", 2222)),
        ("ssh://pi@[fd00::1]/m", Host("fd00::1", "/m", "pi")),
    ],
)
def test_a_host(text: str, host: Host) -> None:
    assert Host.parse(text) == host
    assert Host.parse(host.url.replace(" ", "%20")) == host


@pytest.mark.parametrize(
    "text",
    ["shop1:/opt", "ssh://shop1", "ssh://shop1/", "ssh:///opt", "ssh://-oProxyCommand=x/opt",
     "ssh://a:b@shop1/opt", "ssh://shop1/opt/../etc", "ssh://shop1/a//b", "ssh://shop1:0x/opt",
     "ssh://shop1/opt?x", "ssh://-l@shop1/opt", "http://shop1/opt", "ssh://sh op/opt", "ssh://shop1/a%0Ab"],
)  # fmt: skip
def test_no_host(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|whole"):
        Host.parse(text)


@pytest.mark.parametrize(
    ("waves", "numbers"),
    [
        ([], [0] * 10), ([1], [0] + [1] * 9), ([1, "25%"], [0, 1, 1, 1, *[2] * 6]),
        ([20], [0] * 10), (["100%", 1], [0] * 10), ([4, 3, 3], [0] * 4 + [1] * 3 + [2] * 3),
    ],
)  # fmt: skip
def test_waves(waves: list[int | str], numbers: list[int]) -> None:
    hosts = [f"ssh://h{n}/m" for n in range(10)]
    assert Fleet.from_json({"name": "shops", "hosts": hosts, "waves": waves}).numbers() == numbers


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("name: shops\nhosts: [ssh://a/m, ssh://b]\n")
    with pytest.raises(InvalidInput, match=r"fleet.yaml: hosts\[1\]: .* must be whole"):
        load_fleet(file)
    file.write_text("name: shops\npath: /m\nhosts: [ssh://a/m, ssh://a]\n")
    with pytest.raises(InvalidInput, match="there twice"):
        load_fleet(file)
    file.write_text("name: shops\nhosts: [ssh://a/m]\nwaves: [0]\n")
    with pytest.raises(InvalidInput, match=r"fleet.yaml:3: waves"):
        load_fleet(file)
    file.write_text("name: shops\npath: /m\nhosts: [ssh://a, ssh://b/other]\nwaves: [1, 50%]\n")
    assert [host.url for host in load_fleet(file).places()] == ["ssh://a/m", "ssh://b/other"]
    assert of_one("ssh://pi@shop1/m", None).name == "shop1"
