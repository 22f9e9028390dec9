"""The dashboard: pages made on the server, for people who signed in with an API key.

`site.py` puts it together with the API; a file of `pages/` is a noun, `templates/` has its words,
`static/app.css` the look of all of them.
"""
