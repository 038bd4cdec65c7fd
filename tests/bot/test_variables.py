"""What an agent's words leave open, and what is put there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.variables import filled, left_open


def test_names_are_found_and_filled() -> None:
    text = "Hello {{name}}, it is about {{ order_1 }}; {{name}}! {this} {{Not}} {{}}"
    assert left_open(text, "{{more}}") == {"name", "order_1", "more"}
    assert filled(text, {"name": "Ada", "order_1": "a tent"}) == (
        "Hello Ada, it is about a tent; Ada! {this} {{Not}} {{}}"
    )
    assert filled("{{name}}", {}) == "{{name}}"


@given(st.text())
def test_a_value_is_put_there_as_it_is(value: str) -> None:
    assert filled("a {{x}} b", {"x": value, "y": "never"}) == f"a {value} b"
