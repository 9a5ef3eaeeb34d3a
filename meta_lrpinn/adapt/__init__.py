"""Adaptation: parameters in, better parameters out."""
