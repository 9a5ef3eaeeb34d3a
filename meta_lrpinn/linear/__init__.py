"""What is linear in the scattered wavefield: matrices, operators and their solution."""
