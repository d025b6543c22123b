"""What crosses a process border, typed once for sender and receiver."""
