"""What a method is: target, divergence, positions, samples and schedule, and the loss where they meet."""
