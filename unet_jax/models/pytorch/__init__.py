"""Reads files of PyTorch without PyTorch, and without running what is in them."""
