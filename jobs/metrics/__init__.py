"""Series of metric points and telemetry, and how they are thinned out."""
