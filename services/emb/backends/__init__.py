"""What computes the vectors."""
