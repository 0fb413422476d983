"""Drawing kinds: what a figure looks like, from the frame, and the pages, axes and marks that they share."""
