"""What stays of a run: its record, where its numbers come from, and when two records agree."""
