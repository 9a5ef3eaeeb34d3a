"""Meta-training: inner adaptation, tasks, and the loop around them."""
