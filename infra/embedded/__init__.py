"""The whole platform on one machine without Docker: real servers as child processes of one supervisor."""
