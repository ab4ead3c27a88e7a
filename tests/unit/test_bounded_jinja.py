"""Templates of strangers end, soon and small, whatever they try."""

import time

import jinja2
import pytest

from g4eval.bounded_jinja import (
    BoundedEnvironment,
    compile_template,
    error_line,
    render_template,
)

LOOP = "{% for i in range(100000) %}"
DOUBLE = "{% set ns = namespace(a=['x'], b=['x']) %}{% for i in range(60) %}"


def render(source, **fields):
    environment = BoundedEnvironment(trim_blocks=True)
    return render_template(compile_template(environment, source), fields)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for a in x %}{{ loop.index }}:{{ a }} {% endfor %}", "1:u 2:v "),
        ("{{ x | join(', ') ~ '!' }}", "u, v!"),
        ("{{ 'a-b'.split('-')[1].upper() + 'c' * 3 }}", "Bccc"),
        ("{{ '%s of %03d' % ('a', 7) }}{{ '{:>4}'.format(x[0]) }}", "a of 007   u"),
        ("{% macro f(n) %}{{ n }}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(2) }}",
         "210"),
        ("{{ x == ['u', 'v'] and 'u' in x and 2 ** 10 == 1024 }}", "True"),
        ("{{ {'b': 1, 'a': [2]} | dictsort }}{{ 'é' | e }}", "[('a', [2]), ('b', 1)]é"),
    ],
)  # fmt: skip
def test_what_templates_do_they_still_do(source, expected):
    assert render(source, x=["u", "v"]) == expected


@pytest.mark.parametrize(
    "source",
    [
        LOOP + LOOP + "{% endfor %}{% endfor %}",
        LOOP + "{{ range(100000) | sum }}{% endfor %}",
        LOOP + "z" * 100_000 + "{% endfor %}",
        "{% set t %}" + LOOP + "{{ 'y' * 10000 }}{% endfor %}{% endset %}{{ t | length }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 10 ** 9 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ 'x'.ljust(10 ** 9) }}",
        "{{ ('\t' * 1000).expandtabs(10 ** 8) }}",
        "{{ ('x' * 10 ** 6).replace('x', 'x' * 10 ** 6) }}",
        "{{ ('x' * 10 ** 6) | replace('x', 'x' * 10 ** 6) }}",
        "{{ range(100000) | list | join('x' * 100000) }}",
        "{{ ('x' * 100000).join(range(100000) | map('string')) }}",
        "{{ ('\n' * 100000) | indent(100000) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 10 ** 9) }}",
        "{{ (1).to_bytes(10 ** 9, 'big') }}",
        "{% set ns = namespace(a='x') %}" + LOOP + "{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% set ns = namespace(a='x') %}" + LOOP + "{% set ns.a = ns.a + ns.a %}{% endfor %}",
        DOUBLE + "{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a }}",
        DOUBLE + "{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}"
        "{{ ns.a == ns.b }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(40) }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ " + "(" * 10_000,
        "{{ " + "9" * 5_000 + " }}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__base__.__subclasses__() }}",
        "x" * 300_000,
    ],
)  # fmt: skip
def test_a_template_without_bound_is_an_error_soon(source):
    begun = time.monotonic()
    with pytest.raises(jinja2.TemplateError):
        render(source)
    assert time.monotonic() - begun < 60  # one or two seconds alone; hours without limits


def test_the_line_of_an_error_is_known():
    with pytest.raises(jinja2.TemplateError) as caught:
        render("one\ntwo {{ x.y.z }}\nthree")
    assert error_line(caught.value) == 2


def test_each_rendering_has_a_budget_of_its_own():
    environment = BoundedEnvironment()
    template = compile_template(environment, LOOP + "x{% endfor %}")
    assert [len(render_template(template, {})) for _ in range(12)] == [100_000] * 12
