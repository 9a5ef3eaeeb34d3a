"""Networks as values, what they are trained on, adaptation and meta-training."""
