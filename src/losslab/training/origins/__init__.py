"""The weights and state that a run begins with: drawn, another run's, or its own earlier ones."""
