"""Whatever a file holds, it is settings or a SettingsError with words for an operator, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.settings import SettingsError, parse, to_policy

ENV = {"TOKEN": "hunter2", "KEY": "hunter2", "COUNT": "12"}
WHOLE = (Path(__file__).parent / "golden" / "every_section.txt").read_text().partition("----\n")[0]
TREE = yaml.safe_load(WHOLE.replace("${COUNT}", "12"))
KEYS = sorted(
    {key for line in WHOLE.splitlines() for key in line.replace("{", " ").split() if key.endswith(":")}
)

JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Co", "Cs"]), max_size=8),
        st.sampled_from(
            ["memory", "${KEY}", "*", "tools", "/x/{tool}", "1 request/3s", "10s", "off", "http://x"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([key.strip(":") for key in KEYS]), inner, max_size=4),
    ),
    max_leaves=8,
)


def answer(text: str) -> str:
    try:
        built = parse(text, "config.yaml", ENV)
    except SettingsError as error:
        assert error.problems  # noqa: PT017
        return str(error)
    to_policy(built)
    return repr(built)


def paths(node: object, here: tuple = ()) -> list[tuple]:
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [here, *(path for key, each in below for path in paths(each, (*here, key)))]


@settings(deadline=None, max_examples=400)
@given(path=st.sampled_from(paths(TREE)[1:]), junk=JUNK)
def test_any_value_in_any_place_is_taken_or_told(path: tuple, junk: object) -> None:
    tree = copy.deepcopy(TREE)
    node = tree
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = junk
    assert "hunter2" not in answer(json.dumps(tree, ensure_ascii=False))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_damage_to_a_file_is_told_in_lines(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WHOLE) - 1))
    put = data.draw(st.text("{}[]:,-&*!|>'\"%@`#?\n\t $~<a1é\x00\ue000", max_size=4))
    cut = data.draw(st.integers(0, 6))
    assert "hunter2" not in answer(WHOLE[:at] + put + WHOLE[at + cut :])


@settings(deadline=None)
@given(st.text())
def test_any_text_is_told(text: str) -> None:
    assert answer(text).startswith("config.yaml:")
