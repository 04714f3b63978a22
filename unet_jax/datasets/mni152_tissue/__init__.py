"""The embedded default: tissue classes of the MNI ICBM152 brain template."""
