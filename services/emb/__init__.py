"""EMB: texts in, vectors out."""
