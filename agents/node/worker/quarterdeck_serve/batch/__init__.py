"""Batch prediction: a model over files of CSV, JSON lines or Parquet, by one or more ranks.

    python -m quarterdeck_serve.batch --out OUT model.onnx FILES...

It loads the model by the code of the model server. Files are cut into units; each unit's results are written
beside and renamed, and then its entry in the ledger: whoever is killed, no row is lost and none comes twice.
"""
