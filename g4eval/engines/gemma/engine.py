"""The `gemma` engine: our own decoder behind the Engine and ScoringEngine protocols.

The event loop prepares requests and builds completions; `stepping.py` batches what is in flight.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import torch

from g4eval.config import parse_model
from g4eval.engines.base import EngineConfig, EngineFacts
from g4eval.engines.gemma.chat import PLAIN, ChatFormat, Prompt, template_hash
from g4eval.engines.gemma.checkpoint import Checkpoint, open_checkpoint
from g4eval.engines.gemma.invariance import is_batch_invariant
from g4eval.engines.gemma.memory import GIB, MemoryPlan, free_memory, plan_memory
from g4eval.engines.gemma.model import Gemma
from g4eval.engines.gemma.options import GemmaOptions, find_device, find_dtype
from g4eval.engines.gemma.quantized import Quantization
from g4eval.engines.gemma.sampling import Sampler
from g4eval.engines.gemma.scheduler import Generation, Scheduler
from g4eval.engines.gemma.scoring import score_tokens
from g4eval.engines.gemma.stepping import Stepper
from g4eval.engines.gemma.stopping import StopRule
from g4eval.engines.gemma.templates import TEMPLATE_FILE, says_instruct
from g4eval.engines.gemma.weights import load_model, weight_bytes
from g4eval.engines.hardware import find_gpus, gpu_facts
from g4eval.engines.weights_fingerprint import fingerprint_weights
from g4eval.errors import ConfigError, EngineError
from g4eval.records import Attempt, Completion, Message, Request, StopReason, TokenScores
from g4eval.responses import build_attempt, build_completion

T = TypeVar("T")

# Raised only when what it answers to a request may change: it is part of every run's identity.
ENGINE_VERSION = "0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    checkpoint: Checkpoint
    model: Gemma
    plan: MemoryPlan
    scheduler: Scheduler
    stepper: Stepper
    fingerprint: str
    batch_invariance: str  # what is promised of tokens and neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFlight:
    request: Request
    prompt: Prompt
    rule: StopRule
    generation: Generation
    started_at: float


class GemmaEngine:
    """Runs a Gemma 3 or Gemma 4 text model in this process.

    Args:
        model: path of a folder or GGUF file, hub id, or a packaged model's name.
        options: see GemmaOptions.
        thinking: whether the prompt asks the model to think.
        stop_ids: token ids that end a completion, beside the checkpoint's own.
        instruct: what says that the model was tuned to follow instructions, so that it needs its
            chat template; None: nothing does, beyond the checkpoint's own names.
    """

    def __init__(
        self,
        model: str,
        options: GemmaOptions,
        *,
        thinking: bool,
        stop_ids: Sequence[int] = (),
        instruct: str | None = None,
    ) -> None:
        self._name = model
        self._options = options
        self._thinking = thinking
        self._instruct = instruct
        self._extra_stop_ids = tuple(stop_ids)
        self._loaded: _Loaded | None = None
        self._chat: ChatFormat | None = None
        self._worker: ThreadPoolExecutor | None = None

    @classmethod
    def configure(cls, config: EngineConfig) -> Self:
        """Check the options; raises ConfigError for one that is off, or where no model is named."""
        options = parse_model(GemmaOptions, config.options, where="--set", prefix="engine.")
        if not config.model:
            raise ConfigError(
                "the gemma engine needs a model",
                where="--model",
                hint="give a folder, a GGUF file, a hub id, or gemma-3-270m-demo",
            )
        profile = config.profile
        thinking = options.thinking
        if thinking is None:
            thinking = profile.thinking if profile else False
        return cls(
            config.model,
            options,
            thinking=thinking,
            stop_ids=profile.stop_token_ids if profile else (),
            instruct=f"profile {profile.name}"
            if profile and profile.chat_format != "plain"
            else says_instruct(Path(config.model).name),
        )

    async def __aenter__(self) -> Self:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gemma")
        try:
            self._loaded = await self._in_worker(self._load)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loaded is not None:
            await self._loaded.stepper.close()
        self._close()

    def _close(self) -> None:
        if self._worker is not None:
            self._worker.shutdown(wait=True, cancel_futures=True)
        self._worker = self._loaded = self._chat = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def _in_worker(self, work: Callable[[], T]) -> T:
        assert self._worker is not None, "the engine is not entered"
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _load(self) -> _Loaded:
        options = self._options
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        device = find_device(options.device)
        dtype = find_dtype(options.dtype, device)
        checkpoint = self._settled(open_checkpoint(self._name, device))
        free = int(options.memory_gib * GIB) if options.memory_gib else free_memory(device)
        plan = plan_memory(
            checkpoint.config,
            weight_bytes(checkpoint.config, checkpoint.source, device, dtype),
            dtype,
            max_batch=options.max_batch,
            free_bytes=free,
            where=checkpoint.path,
        )
        fingerprint = options.weights_fingerprint or fingerprint_weights(checkpoint.path)
        try:
            model = load_model(checkpoint.config, checkpoint.source, device, dtype)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"out of memory while loading: {error}", where=device) from error
        exact = device.type == "cpu" and dtype is torch.float32
        scheduler = Scheduler(model, plan.capacity, checkpoint.suppressed_ids)
        return _Loaded(
            checkpoint=checkpoint,
            model=model,
            plan=plan,
            scheduler=scheduler,
            stepper=Stepper(scheduler, self._in_worker),
            fingerprint=fingerprint,
            batch_invariance=_measure_invariance(model) if exact else "not promised",
        )

    def _settled(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with the template that will be used.

        Raises EngineError where a model that was tuned for its template has none.
        """
        if self._options.prompt == "plain":
            return replace(checkpoint, template=None)
        instruct = self._instruct or checkpoint.instruct
        if checkpoint.template is None and instruct is not None:
            raise EngineError(
                f"has no chat template, and {instruct!r} says that it was tuned to follow one",
                where=checkpoint.path,
                hint=f"copy {TEMPLATE_FILE} from the model's page into the folder, or run it as a "
                "base model with --set engine.prompt=plain",
            )
        if checkpoint.template is None:
            note = "no chat template is here: prompts go out plain, as to a base model"
            return replace(checkpoint, notes=(*checkpoint.notes, note))
        return checkpoint

    @property
    def _ready(self) -> _Loaded:
        assert self._loaded is not None, "the engine is not entered"
        return self._loaded

    @property
    def model(self) -> Gemma:
        """The loaded decoder, for those who want full-vocabulary rows (`scoring`)."""
        return self._ready.model

    @property
    def plan(self) -> MemoryPlan:
        """How memory is shared out."""
        return self._ready.plan

    @property
    def context_tokens(self) -> int:
        """Prompt and completion together, at most."""
        own = self._ready.checkpoint.config.context_tokens
        return min(self._options.context_tokens or own, own)

    def describe(self) -> EngineFacts:
        """Return the facts of the loaded model."""
        loaded, model = self._ready, self._ready.model
        checkpoint = loaded.checkpoint
        quantization = checkpoint.quantization
        if checkpoint.config.quantization:
            scheme = Quantization.of(checkpoint.config.quantization, where=checkpoint.path)
            quantization = scheme.name
        template = checkpoint.template
        declared = ("weights_fingerprint",) if self._options.weights_fingerprint else ()
        return EngineFacts(
            engine="gemma",
            engine_version=ENGINE_VERSION,
            model=self._name,
            weights_fingerprint=loaded.fingerprint,
            dtype=str(model.dtype).removeprefix("torch."),
            quantization=quantization,
            kv_cache_dtype=str(model.dtype).removeprefix("torch."),
            attention_backend="torch-sdpa",
            parallelism="none",
            speculative_decoding="none",
            chat_template_hash=PLAIN if template is None else template_hash(template),
            thinking="on" if self._thinking and template is not None else "off",
            reasoning_parser="g4eval",
            other={"device": model.device.type, "torch": torch.__version__.partition("+")[0]},
            context_tokens=self.context_tokens,
            operation={
                "max_batch": loaded.plan.capacity.slots,
                "weight_bytes": loaded.plan.weight_bytes,
                "kv_cache_tokens": loaded.plan.capacity.cached_tokens,
                "batch_invariance": loaded.batch_invariance,
                "notes": list(checkpoint.notes),
                "threads": torch.get_num_threads(),
                **gpu_facts(find_gpus() if model.device.type == "cuda" else ()),
            },
            declared=declared,
        )

    @property
    def capacity(self) -> int:
        """The slots of the batch."""
        return self._ready.plan.capacity.slots

    async def answer(self, request: Request) -> Completion | Attempt:
        """Return a completion as its generation ends; see Engine.answer.

        Raises EngineError where a forward pass fails, or the engine is closed meanwhile.
        """
        loaded = self._ready
        prepared = self._prepare(request, loaded.scheduler)
        if isinstance(prepared, Attempt):
            return prepared
        await loaded.stepper.finish(prepared.generation)
        return self._complete(prepared)

    @property
    def _format(self) -> ChatFormat:
        if self._chat is None:
            checkpoint = self._ready.checkpoint
            chat = ChatFormat(checkpoint.codec, checkpoint.template, thinking=self._thinking)
            chat.check()
            self._chat = chat
        return self._chat

    def _prepare(self, request: Request, scheduler: Scheduler) -> _InFlight | Attempt:
        checkpoint = self._ready.checkpoint
        chat = self._format
        try:
            prompt = chat.prompt_of(request.prompt)
        except EngineError as error:
            return build_attempt(request, error.what)
        room = self.context_tokens - len(prompt.token_ids)
        if room < 1:
            return build_attempt(
                request,
                f"the prompt of {len(prompt.token_ids):,} tokens fills the context of "
                f"{self.context_tokens:,}",
            )
        stop_ids = frozenset(checkpoint.stop_ids) | frozenset(self._extra_stop_ids)
        if checkpoint.template is not None:  # of a base model, these are text
            stop_ids |= checkpoint.codec.end_of_turn_ids
        rule = StopRule(checkpoint.codec, stop_ids, request.sampling.stop)
        generation = Generation(
            prompt_ids=prompt.token_ids,
            sampler=Sampler(request.sampling, request.seed, prompt.token_ids),
            max_new_tokens=min(room, request.sampling.max_new_tokens),
            ends=rule.ends,
        )
        if not scheduler.fits_alone(generation):
            return build_attempt(
                request,
                f"{generation.longest:,} tokens of prompt and budget don't fit the memory left for "
                f"keys and values, {scheduler.capacity.cached_tokens:,} tokens",
            )
        return _InFlight(
            request=request,
            prompt=prompt,
            rule=rule,
            generation=generation,
            started_at=time.time(),
        )

    def _complete(self, done: _InFlight) -> Completion:
        generation = done.generation
        stopped = generation.stopped
        return build_completion(
            done.request,
            done.rule.text_of(generation.generated),
            StopReason.STOP if stopped else StopReason.LENGTH,
            thinking=self._thinking and self._ready.checkpoint.template is not None,
            starts_inside=done.prompt.starts_inside,
            prompt_token_ids=tuple(done.prompt.token_ids),
            token_ids=tuple(generation.generated),
            prompt_tokens=len(done.prompt.token_ids),
            completion_tokens=len(generation.generated),
            started_at=done.started_at,
            finished_at=time.time(),
        )

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The id of `<bos>`."""
        return (self._ready.checkpoint.codec.bos_id,)

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, none added."""
        return self._ready.checkpoint.codec.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens kept."""
        return self._ready.checkpoint.codec.decode(token_ids)

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the chat template writes it."""
        return self._format.render(messages)

    async def score(self, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
        """Return log p of each token after the first, given the ones before it.

        Raises:
            ConfigError: fewer than two tokens, an id outside the vocabulary, or more tokens than
                the context holds.
        """
        config = self._ready.checkpoint.config
        if not 2 <= len(token_ids) <= config.context_tokens:
            raise ConfigError(
                f"{len(token_ids):,} tokens can't be scored: 2 to {config.context_tokens:,} can"
            )
        off = next((i for i in token_ids if not 0 <= i < config.vocab_size), None)
        if off is not None:
            raise ConfigError(f"token id {off} is outside the {config.vocab_size:,} known ones")
        model = self._ready.model
        return await self._in_worker(lambda: score_tokens(model, list(token_ids), top_k))


def _measure_invariance(model: Gemma) -> str:
    return "exact" if is_batch_invariant(model) else "broken on this machine"
