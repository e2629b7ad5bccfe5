"""Ray Tune: the best of three points."""

from ray import tune


def objective(config):
    for step in range(5):
        tune.report({"score": (config["x"] - 3) ** 2 + 1 / (step + 1)})


if __name__ == "__main__":
    tuner = tune.Tuner(
        objective,
        param_space={"x": tune.grid_search([1.0, 2.0, 3.0])},
        tune_config=tune.TuneConfig(metric="score", mode="min"),
    )
    print("best:", tuner.fit().get_best_result().config)
