"""Where words become weights: a run's data, its teacher, its targets, the one loop."""
