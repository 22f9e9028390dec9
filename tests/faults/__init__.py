"""Faults in real processes and real servers, judged by a ledger that lies outside of them."""
