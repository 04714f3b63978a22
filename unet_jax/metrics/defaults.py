"""Metrics that are computed where a config, or a call of `evaluate`, names none."""

DEFAULT_METRICS = (
    *("dice", "iou", "precision", "recall", "volume_similarity"),
    *("hd95", "assd", "nsd", "ece"),
)
