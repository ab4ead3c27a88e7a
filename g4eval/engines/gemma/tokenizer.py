"""Text to token ids and back, from tokenizer.json or from a GGUF file's own vocabulary.

Gemma's tokenizer is a byte-fallback BPE over text with `▁` for spaces; special and user-defined
tokens are found first. No token is added on its own: the caller writes `<bos>`.
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from g4eval.engines.gemma.config import GemmaConfig
from g4eval.engines.gemma.gguf_file import GgufSource
from g4eval.errors import EngineError

TOKENIZER_FILE = "tokenizer.json"
SPACE = "▁"
UNKNOWN = "<unk>"
# Gemma 3 from 4B up has 64 rows more than its tokenizer has tokens; more than that is a mix-up.
MAX_UNUSED_ROWS = 512
# Token types in a GGUF vocabulary.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


class TextCodec:
    """A tokenizer checked against the model it serves."""

    def __init__(self, tokenizer: Tokenizer, config: GemmaConfig, *, where: object) -> None:
        self._tokenizer = tokenizer
        self._check(config, where)
        self.bos_id = config.bos_id
        self.bos_text = str(tokenizer.id_to_token(config.bos_id))
        self.eos_text = str(tokenizer.id_to_token(config.eos_ids[0]))

    def _check(self, config: GemmaConfig, where: object) -> None:
        tokens = self._tokenizer.get_vocab_size(with_added_tokens=True)
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        unused = config.vocab_size - tokens
        bos = self._tokenizer.token_to_id("<bos>")
        if largest >= config.vocab_size or unused > MAX_UNUSED_ROWS or bos != config.bos_id:
            raise EngineError(
                f"the tokenizer doesn't match the model: {tokens:,} tokens, the largest id "
                f"{largest:,}, <bos> {bos}; the model has {config.vocab_size:,} rows and <bos> "
                f"{config.bos_id}",
                where=where,
                hint="use tokenizer and weights of one revision",
            )

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens written in it recognised, none added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens kept."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read a folder's tokenizer.json; raises EngineError where it is missing or broken."""
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise EngineError(
            "has no tokenizer.json, which generating text needs",
            where=folder,
            hint="copy it from the model's page; `g4eval logprobs` works without",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        # The tokenizers package raises plain Exception for every kind of broken file.
        raise EngineError(f"is not a tokenizer: {error}", where=path) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokenizer_of_gguf(source: GgufSource) -> Tokenizer:
    """Build the tokenizer from a GGUF file's tokens, and its merges or scores."""
    tokens: list[str] | None = source.field("tokenizer.ggml.tokens")
    kinds: list[int] | None = source.field("tokenizer.ggml.token_type")
    if not tokens or not kinds:
        raise EngineError("holds no tokenizer, which generating text needs", where=source.where)
    merges = source.field("tokenizer.ggml.merges")
    if merges is not None:
        pairs = [_split_merge(merge) for merge in merges]
    else:
        pairs = merges_from_scores(tokens, source.field("tokenizer.ggml.scores"), kinds)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=pairs, fuse_unk=True, unk_token=UNKNOWN, byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == _CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def _split_merge(merge: str) -> tuple[str, str]:
    # The separator is one space; either side may itself begin with one.
    cut = merge.index(" ", 1)
    return merge[:cut], merge[cut + 1 :]


def merges_from_scores(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Return the merges a SentencePiece vocabulary implies, the best score first.

    SentencePiece joins the neighbours whose union has the highest score; every split of a token
    into two known tokens is therefore a merge with the rank of that token.
    """
    known = set(tokens)
    ordered = sorted(
        (i for i, kind in enumerate(kinds) if kind == _NORMAL and len(tokens[i]) > 1),
        key=lambda i: -scores[i],
    )
    merges = []
    for index in ordered:
        token = tokens[index]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                merges.append((left, right))
    return merges
