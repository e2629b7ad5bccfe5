"""Read `qd job ID --json` on stdin and check what the registry holds of a digits training."""

import json
import sys

REACH = 0.95


def main() -> int:
    job = json.load(sys.stdin)
    accuracy = job["metrics"].get("val_acc", {}).get("value")
    model = next((item for item in job["artifacts"] if item["name"] == "model"), None)
    if job["state"] != "SUCCEEDED" or accuracy is None or accuracy <= REACH or model is None:
        print(f"{job['id']}: {job['state']}, val_acc {accuracy}, model {model}", file=sys.stderr)
        return 1
    print(
        f"In the registry: {job['id']} {job['name']}, val_acc {accuracy:.4f}, model {model['digest'][:19]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
