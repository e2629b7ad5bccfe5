"""Learn from records that keep coming: none is lost, none is trained twice, whatever is killed.

    import quarterdeck_stream

    stream = quarterdeck_stream.open(save=save)      # save(folder): writes the model there
    model = load(stream.checkpoint) if stream.checkpoint else Model()
    for record in stream:                            # a dict
        guess = model.predict(record)
        stream.score(guess, record["label"])         # first test, then train
        model.learn(record)

The settings are the JSON of $QD_STREAM, which `stream:` of a job sets, or the argument of `open`. Between two
records, when it is time, the stream calls `save` and makes what it wrote, its own position in the source, its
scores and its bad records durable by one rename. A script that starts again continues from there.

Standard library only, Python 3.8 or newer: it runs in whatever interpreter the job uses.
"""

from .settings import StreamError
from .stream import Stream, open

__all__ = ["Stream", "StreamError", "open"]
