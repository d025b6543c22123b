"""What tests of this project, and of programs on top of it, need: fakes that keep the promises of the real parts."""
