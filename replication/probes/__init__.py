"""What a method does, measured without training anything."""
