"""Files of velocity models and cases: read by format, written all or nothing."""
