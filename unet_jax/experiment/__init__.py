"""Turns a config into the objects of a run; the only reader of ConfigDict."""
