"""The parts that run: what each does, and why, is told by the notebooks."""
