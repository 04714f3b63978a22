"""Segmentation without a network: thresholds, edges, regions, clusters."""
