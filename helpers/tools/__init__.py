"""What the shell, make and CI call."""
