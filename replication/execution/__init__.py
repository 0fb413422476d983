"""A run made, trained or measured; and made again, to see whether its record still comes out."""
