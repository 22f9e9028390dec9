"""HTTP: the application, who may use it, and a file of routes for each noun."""
