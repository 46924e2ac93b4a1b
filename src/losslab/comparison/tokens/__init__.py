"""The page of tokens: what the runs predicted at single positions."""
