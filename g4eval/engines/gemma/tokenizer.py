"""Text to token ids and back, from tokenizer.json or from a GGUF file's own vocabulary.

Gemma's tokenizer is a byte-fallback BPE over text with `▁` for spaces; special and user-defined
tokens are found first. No token is added on its own: the caller writes `<bos>`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from g4eval.engines.gemma.config import GemmaConfig
from g4eval.engines.gemma.gguf_file import GgufSource
from g4eval.engines.gemma.templates import read_gguf_template
from g4eval.errors import EngineError

TOKENIZER_FILE = "tokenizer.json"
SPACE = "▁"
UNKNOWN = "<unk>"
# Gemma 3 from 4B up has 64 rows more than its tokenizer has tokens; more than that is a mix-up.
MAX_UNUSED_ROWS = 512
# Token types in a GGUF vocabulary.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
# Gemma 3's and 4's own control tokens, whatever a file says of their type.
CONTROL_NAMES = frozenset(
    re.findall(
        r"\S+",
        """
        <pad> <eos> <bos> <unk> <mask>
        <start_of_turn> <end_of_turn> <start_of_image> <end_of_image>
        <|turn> <turn|> <|channel> <channel|> <|think|> <|tool> <tool|> <|tool_call> <tool_call|>
        <|tool_response> <tool_response|> <|image> <|image|> <image|> <|audio> <|audio|> <audio|>
        """,
    )
)
# Their turns end with one of these.
END_OF_TURN_NAMES = ("<end_of_turn>", "<turn|>")
_MARKER = re.compile(r"<[^<>\s]{1,60}>")


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
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
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
        """Return the ids of a text, special tokens written in it recognised, none added.

        Raises EngineError for half a surrogate pair, which no token stands for.
        """
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except UnicodeEncodeError as error:
            raise EngineError("the text holds half a surrogate pair") from error
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens kept."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    @property
    def end_of_turn_ids(self) -> frozenset[int]:
        """The ids of the tokens that end a turn, by their names; those that it has."""
        ids = (self._tokenizer.token_to_id(name) for name in END_OF_TURN_NAMES)
        return frozenset(i for i in ids if i is not None)


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
    """Build the tokenizer from a GGUF file's tokens, and its merges or scores.

    Raises:
        EngineError: there is none, or its lists don't belong together.
    """
    fields = source.fields
    tokens = fields.texts("tokenizer.ggml.tokens")
    kinds = fields.integers("tokenizer.ggml.token_type")
    if not tokens or not kinds:
        raise EngineError("holds no tokenizer, which generating text needs", where=source.where)
    merges = fields.texts("tokenizer.ggml.merges")
    scores = fields.numbers("tokenizer.ggml.scores")
    _check_lengths(tokens, kinds, scores if merges is None else None, source.where)
    special = control_tokens(tokens, kinds, read_gguf_template(source))
    if merges is not None:
        pairs = [_split_merge(merge, source.where) for merge in merges]
    else:
        plain = [kind if i not in special else _CONTROL for i, kind in enumerate(kinds)]
        pairs = merges_from_scores(tokens, scores or [], plain)
    try:
        return _build(tokens, pairs, [tokens[i] for i in sorted(special)], kinds)
    except Exception as error:
        # The tokenizers package raises plain Exception for every kind of broken vocabulary.
        raise EngineError(f"holds a broken tokenizer: {error}", where=source.where) from error


def _build(
    tokens: Sequence[str],
    pairs: list[tuple[str, str]],
    special: Sequence[str],
    kinds: Sequence[int],
) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=pairs,
            fuse_unk=True,
            unk_token=UNKNOWN,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    known = set(special)
    added = zip(tokens, kinds, strict=True)
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=token in known)
            for token, kind in added
            if token in known or kind == _USER_DEFINED
        ]
    )
    return tokenizer


def control_tokens(
    tokens: Sequence[str], kinds: Sequence[int], template: str | None
) -> frozenset[int]:
    """Return the ids of control tokens: by type, by Gemma's own names, and by the template.

    Types are not enough: Google's own QAT files type `<start_of_turn>` as an ordinary token, and a
    prompt that writes it would then be taken apart into pieces the model has never seen.
    """
    written = set() if template is None else set(_MARKER.findall(template))
    return frozenset(
        index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL or token in CONTROL_NAMES or token in written
    )


def _check_lengths(
    tokens: Sequence[str], kinds: Sequence[int], scores: Sequence[float] | None, where: object
) -> None:
    scored = len(tokens) if scores is None else len(scores)
    if len(kinds) != len(tokens) or scored != len(tokens):
        raise EngineError(
            f"the tokenizer's lists don't belong together: {len(tokens):,} tokens, "
            f"{len(kinds):,} types, {scored:,} scores",
            where=where,
        )


def _split_merge(merge: str, where: object = None) -> tuple[str, str]:
    # The separator is one space; either side may itself begin with one.
    cut = merge.find(" ", 1)
    if cut < 0:
        raise EngineError(f"{merge!r:.100} is no merge of two tokens", where=where)
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
