"""What a student can do: held-out text, downstream tasks, answers that a judge rates."""
