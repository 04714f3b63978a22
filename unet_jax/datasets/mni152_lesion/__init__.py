"""Synthetic lesions, implanted into deformed copies of the MNI ICBM152 template."""
