"""Valkey, PostgreSQL and a small language model from wheels, for development; not production."""
