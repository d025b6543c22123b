"""One module of routes for each noun."""
