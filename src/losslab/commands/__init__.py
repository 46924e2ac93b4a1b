"""The commands: what each does, in terms of the rooms below."""
