"""A training run as a product: its folder, its log, what is checked before it, what it reports."""
