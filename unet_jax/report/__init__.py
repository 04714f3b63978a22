"""What a person looks at: overlays, curves, tables, logs."""
