"""Solvers: a velocity model, a frequency and a source in, a wavefield out."""
