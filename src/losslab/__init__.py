"""losslab: find out, honestly, which final loss a Transformer should be trained on."""

__version__ = "0.1.0"
