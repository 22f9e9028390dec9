"""One file for each noun; `api/app.py` puts them together."""
