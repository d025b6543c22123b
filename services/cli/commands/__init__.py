"""Groups of sub-commands, one for each noun."""
