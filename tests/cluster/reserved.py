"""Says where Ray has a placement group: `reserved.py ADDRESS PART-OF-ITS-NAME`, run on the head."""

from __future__ import annotations

import json
import os
import sys

from agents.fabric.ray import driver_environment
from jobs.base.places import places


def main() -> None:
    address, part = sys.argv[1:]
    os.environ |= driver_environment(places(os.environ), os.environ)
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    addresses = {
        node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]
    }
    found: list[str] = []
    for group in ray.util.placement_group_table().values():
        if part in group["name"] and group["state"] == "CREATED":
            nodes = group["bundles_to_node_id"].values()
            found = sorted(addresses.get(node, "nowhere") for node in nodes)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
