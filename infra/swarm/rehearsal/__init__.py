"""`make swarm-test`: the stack on a real engine of its own, on a machine without any image registry."""
