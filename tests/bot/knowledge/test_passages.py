"""Documents become passages that can be told in a breath."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from bot.knowledge.formats import html, markdown, plain_text
from bot.knowledge.passages import MOST, USUAL, Block, Passage, passages

blocks = st.lists(
    st.builds(
        Block, st.text("ab .!\n", max_size=3 * MOST), st.sampled_from([(), ("A",), ("A", "B")]), st.just(3)
    )
)


@given(blocks)
def test_no_word_is_lost_none_is_twice_and_no_passage_is_too_long(given_: list[Block]) -> None:
    made = list(passages(given_))
    assert "".join("".join(one.text for one in made).split()) == "".join(
        "".join(b.text for b in given_).split()
    )
    assert all(0 < len(one.text) <= MOST for one in made)


def test_what_is_not_for_reading_is_left_out() -> None:
    (made,) = passages([Block("\x1b[31mRed\x07\ud800 and\x9b new\x1f", ("A",))])
    assert made.text == "[31mRed and new"
    assert [block.headings for block in html("<h1>A\x1fB\x1b</h1>C")] == [("A B",)]


def test_short_paragraphs_stand_together_under_one_heading_only() -> None:
    made = list(passages([Block("One.", ("A",), 1), Block("Two.", ("A",), 3), Block("Three.", ("B",), 5)]))
    assert made == [Passage("One.\nTwo.", ("A",), 1), Passage("Three.", ("B",), 5)]


def test_long_paragraphs_are_parted_between_sentences() -> None:
    sentence = "This is a sentence of some length about tents. "
    made = list(passages([Block(sentence * 40, (), 7, 2)]))
    assert len(made) > 2
    assert all(one.text.endswith(".") and len(one.text) <= USUAL for one in made)
    assert {(one.line, one.page) for one in made} == {(7, 2)}


def test_a_line_without_end_is_cut() -> None:
    assert [len(one.text) for one in passages([Block("x" * (2 * MOST + 5))])] == [MOST, MOST, 5]
    assert list(passages([Block(" \n ")])) == []


MARKDOWN = """---
title: not to be read
---
# Returns

You can send *anything* back,
[within](http://example.org) `30` days. ![A label](x.png)

Costs
-----

1. Free above $50
2. Otherwise five

| Item | Price |
|------|------:|
| Boots | 90 |
| Tent  |    |

```
code
```

<p>Raw <b>HTML</b></p>

#
# Else
Done.

![](x.png)

***
"""


def test_markdown_keeps_headings_and_lines_and_drops_marks() -> None:
    assert list(markdown(MARKDOWN)) == [
        Block("You can send anything back, within 30 days. A label", ("Returns",), 6),
        Block("Free above $50", ("Returns", "Costs"), 12),
        Block("Otherwise five", ("Returns", "Costs"), 13),
        Block("Item: Boots; Price: 90.", ("Returns", "Costs"), 17),
        Block("Item: Tent.", ("Returns", "Costs"), 18),
        Block("code", ("Returns", "Costs"), 20),
        Block("Raw HTML", ("Returns", "Costs"), 24),
        Block("Done.", ("Else",), 28),
    ]


HTML = """<html><head><title>T</title><style>p {}</style></head>
<body><nav>Menu</nav>
<h1>The <i>shop</i></h1>
<p>Open
daily<script>alert(1)</script> from <b>9</b>.
<p>By bus<br>number 7 &amp; on foot<hr/></p>
<h2></h2>
<table><tr><th>Item<th>Price<tr><td>Boots<td>90</table>
<h2>Else</h2><div>Done<svg/>.</div></svg></body>"""


def test_html_keeps_what_is_seen() -> None:
    assert list(html(HTML)) == [
        Block("Open daily from 9.", ("The shop",), 4),
        Block("By bus number 7 & on foot", ("The shop",), 6),
        Block("Item; Price", ("The shop",), 8),
        Block("Boots; 90", ("The shop",), 8),
        Block("Done.", ("The shop", "Else"), 9),
    ]


def test_html_with_a_head_that_nobody_closed() -> None:
    assert [block.text for block in html("<head><title>T<body><p>Hello")] == ["Hello"]


def test_a_heading_of_a_whole_paragraph_is_a_paragraph() -> None:
    assert [block.headings for block in html(f"<h1>{'long ' * 60}</h1>")] == [()]


def test_text_is_parted_by_blank_lines() -> None:
    assert list(plain_text("\nOne\ntwo\n\n\nthree\n")) == [Block("One two", (), 2), Block("three", (), 6)]
    assert list(plain_text("One\n\ntwo", page=4)) == [Block("One", (), 0, 4), Block("two", (), 0, 4)]


@given(st.text("#*-|`<>/ph1 a\n[]()!:", max_size=200))
@example("<![a:")
@example("<![1")
@example("<p>one<![a b>two<![CDATA[three]]><p>four")
def test_any_text_can_be_taken_apart(text: str) -> None:
    for take_apart in (markdown, html, plain_text):
        for block in take_apart(text):
            assert block.text.strip()


def test_a_section_that_is_none_is_no_end_of_a_page() -> None:
    said = [block.text for block in html("<p>one<![a b>two</p><p>three <![1> four</p>")]
    assert said == ["onetwo", "three four"]
