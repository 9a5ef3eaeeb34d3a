"""What the machine gives: precision, compiled programs, memory, workers, libraries."""
