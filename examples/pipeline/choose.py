"""Of all models, the one with the smallest error."""

import json
import pathlib

import quarterdeck

models = [json.loads(path.read_text()) for path in pathlib.Path("models").iterdir()]
best = min(models, key=lambda model: model["error"])
quarterdeck.log(error=best["error"], models=len(models))
pathlib.Path("best.json").write_text(json.dumps(best))
