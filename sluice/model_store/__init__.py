"""Models on disk: which there are, which of them each alias means, and whether their files are what was added."""
