"""What one does with wavefields: convert, save, report."""
