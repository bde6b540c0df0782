"""A trained model as a product: fast weights, the engine behind the page, the page, a Space."""
