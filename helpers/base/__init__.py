"""What the course stands on and does not teach: errors, files, clocks, downloads, a loss in pieces."""
