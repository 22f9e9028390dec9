"""Valkey and PostgreSQL from wheels, for `aurora dev`, `aurora demo` and tests; not production."""
