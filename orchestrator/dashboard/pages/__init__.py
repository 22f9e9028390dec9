"""One file for each page of the navigation; `site.py` puts them together."""
