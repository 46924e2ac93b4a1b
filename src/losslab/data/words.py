"""Words of a text, as the WikiText benchmarks count them."""


def count_words(text: str) -> int:
    """Count the words between white space, and one end of line for each line (Merity et al. 2016, arXiv:1609.07843: a
    blank line is one word, too; a last line counts with or without its line break)."""
    lines = text.count("\n") + bool(text and not text.endswith("\n"))
    return len(text.split()) + lines


LONG = 8
"""Words from which an equal text must be a copy."""


def is_long(text: str) -> bool:
    """Whether an equal text must be a copy: "Yes, my lord." is said twice without having been copied."""
    return len(text.split(maxsplit=LONG)) >= LONG
