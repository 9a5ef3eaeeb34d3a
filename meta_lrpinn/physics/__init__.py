"""Acoustic wave physics as functions of arrays; nothing here knows of networks."""
