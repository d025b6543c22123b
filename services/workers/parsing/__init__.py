"""Files of many formats read as blocks of text, in a child process of their own."""
