"""Speed and memory, measured against a baseline in turns: `make bench`. Each prints a table and writes JSON."""
