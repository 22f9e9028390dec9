"""The real code in one thread, in virtual time, against models of Redis and Postgres, by a seed."""
