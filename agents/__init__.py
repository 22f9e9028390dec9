"""The reference agents of a security operations centre: ordinary user code."""
