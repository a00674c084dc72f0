"""Speed as ratios to plain alternatives, measured side by side in one run: `make bench`."""
