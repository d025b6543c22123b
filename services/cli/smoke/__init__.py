"""The smoke suite: whether a platform does all that it is for, seen from outside."""
