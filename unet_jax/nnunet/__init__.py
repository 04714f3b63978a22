"""nnU-Net's rules and files: it plans data sets, and reads fingerprints and plans."""
