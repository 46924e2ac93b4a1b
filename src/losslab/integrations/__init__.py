"""Our losses in other libraries' models and training loops. Each file imports its library late."""
