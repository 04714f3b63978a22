"""Random-access sources of cases."""
