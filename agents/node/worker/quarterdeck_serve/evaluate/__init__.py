"""The job of an evaluation: measures a version of a model on a version of a data set.

    python -m quarterdeck_serve.evaluate

It reads `task.json` and the model below `model/` of its work folder, and the data in `$QD_DATA_HOLDOUT`; it
writes `report.json`, and in `samples.json` what the metrics come to in each bootstrap resample. It loads
an ONNX model by the code of the model server, and needs numpy and what the model needs
(`quarterdeck[evaluate]`).
"""
