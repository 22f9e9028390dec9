"""The command line `aurora`: one file per noun, everything heavy imported inside the commands."""
