"""A version of features in a training script: what `features:` of the job names.

    import quarterdeck_features

    transform = quarterdeck_features.load()
    arrays = transform({"km": [1.2, 3.4], "city": ["Bern", "Bonn"]})

It runs in the job's own environment and needs numpy.
"""

from quarterdeck_serve.features import FeatureError, Features, load

__all__ = ["FeatureError", "Features", "load"]
