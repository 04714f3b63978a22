"""Segments found without labels, and what names them afterwards."""
