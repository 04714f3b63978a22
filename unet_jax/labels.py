"""What a label value means, wherever labels go."""

IGNORE = -1
"""Label value in memory of pixels that count for nothing."""
