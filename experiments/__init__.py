"""One script per figure or table: `python -m experiments.NAME --flag=value`."""
