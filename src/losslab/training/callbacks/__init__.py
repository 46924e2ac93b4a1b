"""Callbacks: those that a configuration names, and the two of losslab's that stand around them."""
