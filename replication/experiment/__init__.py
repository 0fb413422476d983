"""What is wanted, in words: a recipe, its id, the scale that gives its words numbers, and a run of both."""
