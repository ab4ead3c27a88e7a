"""Strangers' Jinja templates, rendered in this process within limits.

Prompts of task families and chat templates of checkpoints come from downloads. They run in Jinja's
sandbox; what the sandbox leaves open is counted here: every turn of a loop, call and filter is a
step, texts and lists cost steps by their size, and one value, and the whole output, have a largest
size. A template past a limit fails; it never keeps this process or fills its memory.

Covers: endless and nested loops, recursion, padding, joining, replacing, formatting, powers and
products without bound, lists nested into themselves, constants folded at compile time, templates
that load others. Doesn't cover: a bug in Jinja or Python that lets code out of the sandbox.
"""

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

T = TypeVar("T")
Counted = TypeVar("Counted", nodes.For, nodes.Macro, nodes.CallBlock)

MAX_TEMPLATE_CHARACTERS = 1 << 18  # Gemma 4's own has 20,000
MAX_STEPS = 500_000
MAX_CHARACTERS = 1 << 24  # of one text, and of the output
MAX_ITEMS = 1 << 20  # of one list, lists inside it included
MAX_NUMBER = 100_000  # an argument of a filter or a padding method
MAX_BITS = 1 << 14  # of a whole number
CHARACTERS_A_STEP = 256
ITEMS_A_STEP = 2
# Text methods whose result is no longer than the text, or three times it.
_PLAIN_METHODS = frozenset(
    re.findall(
        r"\w+",
        """
        capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit
        isidentifier islower isnumeric isprintable isspace istitle isupper lower lstrip partition
        removeprefix removesuffix rfind rindex rpartition rsplit rstrip split splitlines startswith
        strip swapcase title upper
        """,
    )
)
# Filters that take a text as a whole, in C.
_QUICK_FILTERS = frozenset(
    re.findall(
        r"\w+",
        """
        attr capitalize center count d default e escape first float format indent int last length
        lower replace safe string tojson trim upper
        """,
    )
)
_PADDING_METHODS = frozenset(("center", "expandtabs", "ljust", "rjust", "zfill"))
_WIDE_FORMAT = re.compile(r"\d{6}|\*|:[^{}]*\{")  # a width over 99,999, or one given elsewhere


class StrangeTemplateError(jinja2.TemplateRuntimeError):
    """A template went past a limit, or raised what isn't Jinja's."""


def compile_template(environment: "BoundedEnvironment", source: str) -> jinja2.Template:
    """Return the compiled template; raises jinja2.TemplateError whatever is wrong with it."""
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise StrangeTemplateError(
            f"it has {len(source):,} characters, and {MAX_TEMPLATE_CHARACTERS:,} are read"
        )
    return environment.within_limits(lambda: environment.from_string(source))


def render_template(template: jinja2.Template, fields: Mapping[str, Any]) -> str:
    """Return the text of a template; raises jinja2.TemplateError whatever goes wrong in it."""
    environment = template.environment
    assert isinstance(environment, BoundedEnvironment)
    return environment.within_limits(lambda: template.render(fields))


def error_line(error: BaseException) -> int | None:
    """Return the template's line at which an error arose; None where it isn't known."""
    line = getattr(error, "lineno", None)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


class _Budget(threading.local):
    steps = MAX_STEPS
    characters = MAX_CHARACTERS


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits; templates of it are rendered by `render_template`."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(autoescape=False, finalize=self._written, **options)
        self._budget = _Budget()
        self.globals.pop("lipsum", None)
        del self.filters["random"]  # a prompt is the same every time
        for name, function in list(self.filters.items()):
            self.add_filter(name, function)

    def add_filter(self, name: str, function: Callable[..., Any]) -> None:
        """Add a filter, counted and bounded as Jinja's own are."""
        self.filters[name] = self._bounded(name, function)

    def within_limits(self, work: Callable[[], T]) -> T:
        """Call `work` with a fresh budget; raises jinja2.TemplateError for whatever it raises."""
        self._budget.steps, self._budget.characters = MAX_STEPS, MAX_CHARACTERS
        try:
            return work()
        except jinja2.TemplateError:
            raise
        except Exception as error:
            # TypeError, IndexError, ZeroDivisionError, RecursionError ...: the template's own.
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise StrangeTemplateError(what[:300]).with_traceback(error.__traceback__) from error

    def spend(self, steps: int) -> None:
        """Count steps; raises StrangeTemplateError past the limit."""
        self._budget.steps -= steps
        if self._budget.steps < 0:
            raise StrangeTemplateError(f"it takes more than {MAX_STEPS:,} steps")

    def joined(self, *values: Any) -> str:
        """Return `a ~ b`, within limits."""
        texts = [v if isinstance(v, str) else str(self.measured(v)) for v in values]
        self._check_characters(sum(map(len, texts)))
        return "".join(texts)

    def measured(self, value: Any) -> Any:
        """Return a value after counting all that it holds, a shared part each time it appears."""
        if isinstance(value, str):
            self._check_characters(len(value))
            return value
        waiting, items, characters = [value], 0, 0
        while waiting:
            one = waiting.pop()
            if isinstance(one, str | bytes):
                characters += len(one)
            elif isinstance(one, Namespace):
                waiting.append(getattr(one, "_Namespace__attrs"))  # noqa: B009  its name, mangled
            elif isinstance(one, Mapping):
                items += len(one)
                waiting.extend(one)
                waiting.extend(one.values())
            elif isinstance(one, list | tuple | set | frozenset):
                items += len(one)
                waiting.extend(one)
            elif isinstance(one, range):
                items += len(one)
            if items > MAX_ITEMS:
                raise StrangeTemplateError(f"a list in it has over {MAX_ITEMS:,} items")
        self._check_characters(characters)
        self.spend(items // ITEMS_A_STEP)
        return value

    def _written(self, value: Any) -> Any:
        """Count what is about to be written out."""
        if not isinstance(value, str):
            value = self.measured(value)
            value = value if isinstance(value, jinja2.Undefined) else str(value)
        if isinstance(value, str):
            self._budget.characters -= len(value)
            if self._budget.characters < 0:
                raise StrangeTemplateError(f"it writes over {MAX_CHARACTERS:,} characters")
            self.spend(1 + len(value) // CHARACTERS_A_STEP)
        return value

    def _check_characters(self, count: int) -> None:
        if count > MAX_CHARACTERS:
            raise StrangeTemplateError(f"a text in it has over {MAX_CHARACTERS:,} characters")
        self.spend(count // CHARACTERS_A_STEP)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Check the size of a sum, a product, a power or a formatted text before it is made."""
        self.spend(1)
        if isinstance(left, int | float) and isinstance(right, int | float):
            self._check_number(operator, left, right)
        elif operator == "*":
            text, times = (left, right) if isinstance(right, int) else (right, left)
            if isinstance(times, int) and isinstance(text, str | bytes | list | tuple):
                self._check_product(text, times)
        elif operator == "%" and isinstance(left, str):
            self._check_format(left, [right])
        elif operator == "+" and not isinstance(left, int | float):
            self.measured(left)
            self.measured(right)
        return super().call_binop(context, operator, left, right)

    @staticmethod
    def _check_number(operator: str, left: float, right: float) -> None:
        bits = 0
        if isinstance(left, int) and isinstance(right, int):
            if operator == "**":
                bits = left.bit_length() * max(right, 0)
            elif operator == "*":
                bits = left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise StrangeTemplateError("a number in it is too large")

    def _check_product(self, value: Any, times: int) -> None:
        if isinstance(value, str | bytes):
            self._check_characters(len(value) * max(times, 0))
        elif len(value) * max(times, 0) > MAX_ITEMS:
            raise StrangeTemplateError(f"a list in it has over {MAX_ITEMS:,} items")

    def _check_format(self, text: str, values: Iterable[Any]) -> None:
        self.measured(list(values))
        if _WIDE_FORMAT.search(text):
            raise StrangeTemplateError("a format in it asks for too wide a text")

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count a call, and check methods of texts and numbers before they run."""
        self.spend(1)
        method = getattr(function, "__wrapped__", function)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int | float):
            args = self._checked_method(owner, str(method.__name__), args)
        value = super().call(context, function, *args, **kwargs)
        return self.measured(value) if isinstance(value, str | list) else value

    def _checked_method(self, owner: Any, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(owner, str):
            if name in ("bit_length", "is_integer"):
                return args
        elif name in _PLAIN_METHODS:
            self._check_characters(len(owner))
            return args
        elif name in _PADDING_METHODS:
            widths = [a for a in args if isinstance(a, int)]
            self._check_characters(len(owner) + sum(widths) * max(1, owner.count("\t")))
            return args
        elif name == "replace" and len(args) >= 2:
            self._check_characters(len(owner) + owner.count(args[0]) * len(args[1]))
            return args
        elif name == "join" and len(args) == 1:
            return (self._joinable(args[0], owner),)
        elif name in ("format", "format_map"):
            self._check_format(owner, args)
            return args
        raise StrangeTemplateError(f"{name}() of {type(owner).__name__} is not for templates")

    def _joinable(self, values: Iterable[Any], separator: str) -> list[Any]:
        """Return the values as a list whose join is short enough."""
        items = list(values)
        self.measured(items)
        self._check_characters(len(separator) * len(items))
        return items

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.spend(1)
            value, rest = args[first], args[first + 1 :]
            if isinstance(value, str) and name not in _QUICK_FILTERS:
                self.spend(len(value))  # a step a character: they are Python's loops
            value = self._checked_filter(name, self.measured(value), (*rest, *kwargs.values()))
            result = function(*args[:first], value, *rest, **kwargs)
            return self.measured(result) if isinstance(result, str | list) else result

        return bounded

    def _checked_filter(self, name: str, value: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what the filter is to work on; raises where its result would be too large."""
        numbers = [a for a in arguments if isinstance(a, int)]
        if any(number > MAX_NUMBER for number in numbers):
            raise StrangeTemplateError(f"{name} is given {max(numbers)}, over {MAX_NUMBER:,}")
        texts = [a for a in arguments if isinstance(a, str)]
        if name == "join":
            return self._joinable(value, texts[0] if texts else "")
        if name == "replace" and len(texts) == 2:
            self._check_characters(str(value).count(texts[0]) * len(texts[1]))
        elif name == "indent":
            widths = sum(numbers) + sum(map(len, texts))
            self._check_characters((str(value).count("\n") + 1) * max(4, widths))
        elif name == "format" and isinstance(value, str):
            self._check_format(value, arguments)
        elif name in ("tojson", "pprint") and any(number > 64 for number in numbers):
            raise StrangeTemplateError(f"{name} is given {max(numbers)}, over 64")
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = _Counted().visit(super()._parse(source, name, filename))
        assert isinstance(tree, nodes.Template)
        return tree


class _Counted(NodeTransformer):
    """Puts steps into loops and macros, and makes the environment do what Jinja doesn't check."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  Jinja's naming
        return self._with_a_step(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802  Jinja's naming
        return self._with_a_step(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802  Jinja's naming
        return self._with_a_step(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802  Jinja's naming
        self.generic_visit(node)
        return _ask("joined", node.nodes, node.lineno)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802  Jinja's naming
        self.generic_visit(node)
        parts = [node.expr, *(operand.expr for operand in node.ops)]
        if not any(isinstance(part, nodes.Const) for part in parts):
            node.expr = _ask("measured", [node.expr], node.lineno)
            for operand in node.ops:
                operand.expr = _ask("measured", [operand.expr], node.lineno)
        return node

    def _with_a_step(self, node: Counted) -> Counted:
        self.generic_visit(node)
        written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        steps = nodes.Const(1 + written // CHARACTERS_A_STEP, lineno=node.lineno)
        call = _ask("spend", [steps], node.lineno)
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node

    def _refused(self, node: nodes.Node) -> nodes.Node:
        raise jinja2.TemplateSyntaxError("a template can't load another one", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refused  # noqa: N815


def _ask(method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
    function = nodes.EnvironmentAttribute(method, lineno=line)
    return nodes.Call(function, arguments, [], None, None, lineno=line)
