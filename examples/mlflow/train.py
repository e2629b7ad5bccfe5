"""A script that logs to MLflow and knows nothing of Quarterdeck. Its curves are in the console as it trains.

pip install mlflow-skinny
qd submit examples/mlflow/job.yaml --python PYTHON --watch
"""

import math
import random
import time

import mlflow

PARAMS = {"lr": 0.1, "epochs": 30, "seed": 0}


def main() -> None:
    random.seed(PARAMS["seed"])
    mlflow.set_experiment("line")
    with mlflow.start_run(run_name="fit", tags={"team": "examples"}):
        mlflow.log_params(PARAMS)
        weight = 5.0
        for epoch in range(int(PARAMS["epochs"])):
            weight -= PARAMS["lr"] * 2 * (weight - 3.0) + random.gauss(0, 0.01)
            mlflow.log_metrics({"loss": (weight - 3.0) ** 2, "weight": weight}, step=epoch)
            time.sleep(0.1)
        mlflow.log_dict({"weight": weight}, "model.json")
        with mlflow.start_run(run_name="check", nested=True):  # recorded as check/error
            mlflow.log_metric("error", math.fabs(weight - 3.0))


if __name__ == "__main__":
    main()
