"""Traces: which span a task came from, the spans of ours, and how they leave the process."""
