"""Features: one transform for training, batch and serving. With numpy alone, in the job's own environment.

`python -m quarterdeck_serve.features` builds a version of a data set.
"""

from .transform import FeatureError, Features, load

__all__ = ["FeatureError", "Features", "load"]
