"""Loops: one actor a file, and none knows another."""
