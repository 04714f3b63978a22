"""Loss functions: pure, from logits, reduced by the caller."""
