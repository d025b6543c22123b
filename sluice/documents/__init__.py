"""Documents: what was uploaded, the versions of it, and the chunks that search finds."""
