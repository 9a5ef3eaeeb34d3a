"""Scripts that make velocity models, task sets and reference wavefields."""
