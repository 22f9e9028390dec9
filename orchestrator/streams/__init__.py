"""The wire: the only place that speaks to Redis."""
