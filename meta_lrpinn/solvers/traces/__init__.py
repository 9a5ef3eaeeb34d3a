"""Seismograms: wavefields of many frequencies as functions of time.

transform   wavelets, the frequencies that a record needs, and the way back to time
record      `time_traces`, which solves, and `Traces`, its result
storage     files of traces, SEG-Y among them
movie       a wavefield in motion
"""
