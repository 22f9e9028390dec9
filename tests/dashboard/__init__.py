"""The dashboard in tests: served, seeded, measured, and photographed for the docs."""
