"""Surveys larger than memory, or than one machine: piece by piece into a zarr file.

A survey is divided into blocks, one frequency of some velocities and sources (`blocks`).
Each is solved by itself (`run`), in this process or on the workers of a Dask cluster
(`executors`), and is one chunk of every array of the output (`store`): whoever solves it
writes it. Velocities are read where they are needed (`velocities`).
"""
