"""What a program or a notebook calls. No torch here: it is imported where weights are."""
