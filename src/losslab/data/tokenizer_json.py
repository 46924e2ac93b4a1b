"""Any tokenizer as a tokenizer.json, for programs that read nothing else."""

from __future__ import annotations

from losslab.data.byte_level import byte_characters
from losslab.data.tokenizer import END_OF_TEXT, MASK, Tokenizer


def as_json(tokenizer: Tokenizer) -> str:
    """A tokenizer.json with the same ids, which the `tokenizers` library reads, for plain bytes too."""
    if tokenizer.content is not None:
        return tokenizer.content
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    # Byte-level BPE without a merge: each byte has its stand-in character (Radford et al. 2019), whose id is the byte.
    vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    special = [END_OF_TEXT] if tokenizer.mask is None else [END_OF_TEXT, MASK]
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    content: str = backend.to_str()
    return content
