"""The same loss from hidden states and output head, which never holds a logit for every position and class."""
