"""Where it runs: device, processes, memory, and files that exist completely or not at all."""
