"""The record: the only place, with migrations/, that speaks to Postgres."""
