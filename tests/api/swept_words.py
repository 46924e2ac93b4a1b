"""The sweep that the tests of this folder share."""

from runs import TINY

WORDS = [*TINY, "name=swept", "loss=cross_entropy,square", "seed=1,2"]
