"""`pace` and `limit_patterns`: what is refused before anything is served."""

from __future__ import annotations

import pytest

from proxy.settings import SettingsError, parse, to_policy

YAML = """
upstreams: {{there: {{url: "http://upstream.test", dialect: rest, {more}}}}}
routes: [{{name: r, path: /, upstream: there}}]
"""


@pytest.mark.parametrize(("said", "paced"), [("pace: told", True), ("pace: off", False), ("verify: x", None)])
def test_it_is_on_unless_it_is_off(said: str, paced: bool | None) -> None:
    more = said if paced is not None else ""
    policy = to_policy(parse(YAML.format(more=more), "test.yaml", {}))
    assert policy.upstreams["there"].paced is (paced is not False)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("pace: fast", "told or off"),
        ("limit_patterns: rate", "a list of regular expressions"),
        ("limit_patterns: ['']", "a list of regular expressions"),
        ("limit_patterns: ['(rate']", "is no regular expression"),
        ("limit_patterns: ['r*']", "is in every answer"),
        ("limit_patterns: ['(a+)+b']", "repeats a group that repeats"),
        ("limit_patterns: ['(?P<minutes>[0-9]+)m']", "the only named group"),
        (f"limit_patterns: ['{'x' * 201}']", "at most 200"),
        (f"limit_patterns: [{', '.join(['x'] * 17)}]", "at most 16"),
    ],
)
def test_what_makes_no_sense_does_not_start(said: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(YAML.format(more=said), "test.yaml", {})
    assert why in str(refused.value)
    assert "test.yaml:2" in str(refused.value)
