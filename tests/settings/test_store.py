"""`store:` where counts are kept: every way to write it, and every fault without its secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from jsonschema import Draft202012Validator

from proxy.core.policy import OnStoreFailure
from proxy.settings import Settings, SettingsError, json_schema, load, parse, to_policy
from proxy.settings.store import Store

REST = """
upstreams: {a: {url: http://127.0.0.1:9000, dialect: openai}}
routes: [{name: chat, path: /, upstream: a}]
"""
ENV = {
    "PASSWORD": "hunter2",
    "WHOLE": "rediss://ops:hunter2@cache:6380/3",
    "ENCODED": "hunter2%40%2F%25",
    "LINES": "redis://:hunter2@cache\n",
    "NONE": "",
    "WORD": "memory",
}
URL = "{url: redis://h, %s}"
NO_HOST = "the URL has no host, or an empty one in its list; write such as redis://127.0.0.1:6379"
NO_PORT = "there is no such port; write 1 to 65535"
NO_DATABASE = "the URL's database is no number; write a whole number from 0, such as /0"
NO_SERVICE = (
    "the URL does not name the service that the sentinels watch; write it after the hosts, such as "
    "redis+sentinel://10.0.0.7:26379/mymaster"
)
NO_PASSWORD = "the URL has no password before its @; write user:password@, or :password@ for the default user"
ENCODE = (
    "the user or the password holds / ? # @ or % as it is; write each in percent-encoding, such as %40 for @"
)
UNREADABLE = "the URL's host cannot be read; write such as redis://127.0.0.1:6379"
QUERY = "the URL holds a query or a fragment; write timeout, ca and the like beside url, in a mapping"
BLANK = "the URL holds a blank, a line break or a control character (a secret's last newline?); remove it"
NO_SCHEME = (
    "the scheme is not known; write redis:// or valkey://, rediss:// or valkeys:// with TLS, and +cluster or "
    "+sentinel before ://"
)
NO_SOCKET = (
    "a store behind a Unix socket is not supported; write its host and port, such as redis://127.0.0.1:6379"
)
NO_NAMESPACE = "cannot be a namespace; write 1 to 64 letters, digits, dots, dashes and underscores"
NEITHER = "is neither memory nor a URL; "
SHAPE = "a word, a URL or a mapping is needed here; write memory, or such as redis://127.0.0.1:6379"
NO_TLS = "has no effect without TLS; write rediss:// in url, or remove it"


def settings(stated: str) -> Settings:
    return parse(f"store: {stated}{REST}", "config.yaml", ENV)


def store(stated: str) -> Store:
    return settings(stated).store


def problem(stated: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(stated)
    assert "hunter2" not in repr(caught.value)
    (only,) = str(caught.value).splitlines()
    return only


def route(stated: str) -> Settings:
    return parse(REST.replace("upstream: a}]", f"upstream: a, {stated}}}]"), "config.yaml", ENV)


@pytest.mark.parametrize("stated", ["memory", "${WORD}"])
def test_memory_is_not_shared(stated: str) -> None:
    for each in (store(stated), parse(REST, "config.yaml", {}).store):
        assert (each.kind, each.hosts, each.shared, each.shown) == ("memory", (), False, "memory")


@pytest.mark.parametrize(
    ("url", "kind", "tls", "hosts", "shown"),
    [
        ("redis://h", "redis", False, [("h", 6379)], "redis://h:6379/0"),
        ("redis://h:7/", "redis", False, [("h", 7)], "redis://h:7/0"),
        ("rediss://h:7/15", "redis", True, [("h", 7)], "rediss://h:7/15"),
        ("valkey://h_1.x-y", "redis", False, [("h_1.x-y", 6379)], "redis://h_1.x-y:6379/0"),
        ("valkeys://[::1]", "redis", True, [("::1", 6379)], "rediss://[::1]:6379/0"),
        ("redis+cluster://h", "cluster", False, [("h", 6379)], "redis+cluster://h:6379"),
        ("redis+cluster://h:1,[::1]:2/", "cluster", False, [("h", 1), ("::1", 2)], None),
        ("rediss+cluster://h:1,i", "cluster", True, [("h", 1), ("i", 6379)], "rediss+cluster://h:1,i:6379"),
        ("valkey+cluster://h", "cluster", False, [("h", 6379)], "redis+cluster://h:6379"),
        ("valkeys+cluster://h", "cluster", True, [("h", 6379)], "rediss+cluster://h:6379"),
        ("redis+sentinel://h/m", "sentinel", False, [("h", 26379)], "redis+sentinel://h:26379/m/0"),
        ("redis+sentinel://h:1,i/m/4", "sentinel", False, [("h", 1), ("i", 26379)], None),
        ("rediss+sentinel://h/m", "sentinel", True, [("h", 26379)], "rediss+sentinel://h:26379/m/0"),
        ("valkey+sentinel://h/m", "sentinel", False, [("h", 26379)], "redis+sentinel://h:26379/m/0"),
        ("valkeys+sentinel://h/m", "sentinel", True, [("h", 26379)], "rediss+sentinel://h:26379/m/0"),
    ],
)
@pytest.mark.parametrize("form", ["'%s'", "{url: '%s'}"])
def test_a_url_alone_and_in_a_mapping(form, url, kind, tls, hosts, shown) -> None:
    stated = store(form % url)
    assert (stated.kind, stated.tls, stated.hosts) == (kind, tls, tuple(hosts))
    assert (stated.shared, stated.username, stated.password) == (True, "", None)
    assert stated.shown == (shown or stated.shown)
    assert store(f"'{stated.shown}'") == stated


def test_the_service_and_the_database_follow_the_hosts() -> None:
    stated = store("redis+sentinel://s1,s2/my-master.1/4")
    assert (stated.service, stated.database) == ("my-master.1", 4)
    assert store("redis://h/3").database == 3


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("redis://:${PASSWORD}@h", "", "hunter2"),
        ("redis://ops:${PASSWORD}@h", "ops", "hunter2"),
        ("redis://ops:${ENCODED}@h", "ops", "hunter2@/%"),
        ("${WHOLE}", "ops", "hunter2"),
        ("redis+cluster://:hunter2:,[]é@h,i", "", "hunter2:,[]é"),
        ("redis+sentinel://o%3Aps:hunter2@h/m", "o:ps", "hunter2"),
    ],
)
def test_a_password_is_read_and_never_shown(url: str, username: str, password: str) -> None:
    for stated in (settings(f"'{url}'"), settings(f"{{url: '{url}'}}")):
        assert stated.store.username == username
        assert stated.store.password is not None
        assert stated.store.password.get_secret_value() == password
        assert ":***@" in stated.store.shown
        assert "hunter2" not in repr(stated) + str(stated) + stated.model_dump_json() + stated.store.shown


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("memroy", NEITHER + 'did you mean "memory"?'),
        ("redis", NEITHER + "write such as redis://127.0.0.1:6379"),
        ("':${PASSWORD}@h'", NEITHER + "write such as redis://127.0.0.1:6379"),
        ("'${NONE}'", NEITHER + "write such as redis://127.0.0.1:6379"),
        ("6379", SHAPE),
        ("off", SHAPE),
        ("[redis://h]", SHAPE),
        ("reddis://:hunter2@h", 'the scheme is not known; did you mean "redis://"?'),
        ("redis+clustr://h", 'the scheme is not known; did you mean "redis+cluster://"?'),
        ("http://:hunter2@h", NO_SCHEME),
        ("unix:///run/redis.sock", NO_SOCKET),
        ("redis://", NO_HOST),
        ("redis:///0", NO_HOST),
        ("redis://:6379", NO_HOST),
        ("redis://:hunter2@:6379", NO_HOST),
        ("'redis+cluster://h,,i'", NO_HOST),
        ("'redis+sentinel://h,/m'", NO_HOST),
        ("redis://hö", UNREADABLE),
        ("redis://h:0", NO_PORT),
        ("redis://h:65536", NO_PORT),
        ("redis://h:x", NO_PORT),
        ("'redis://h:'", NO_PORT),
        ("redis://ops:hunter2:6379", NO_PORT),
        ("'redis://[::1]7'", NO_PORT),
        ("'redis://[::1'", "there is no such IPv6 address; write such as redis://[::1]:6379"),
        ("'redis://[127.0.0.1]'", "there is no such IPv6 address; write such as redis://[::1]:6379"),
        ("'redis://[h]'", "there is no such IPv6 address; write such as redis://[::1]:6379"),
        ("'redis://h,i'", "the URL names several hosts; write +cluster:// or +sentinel://, or one host"),
        ("redis://h/x", NO_DATABASE),
        ("redis://h/-1", NO_DATABASE),
        ("redis://h/1/2", NO_DATABASE),
        ("redis+sentinel://h/m/x", NO_DATABASE),
        ("redis+cluster://h/0", "a cluster has one database only; remove what follows the hosts"),
        ("redis+sentinel://h", NO_SERVICE),
        ("redis+sentinel://h/", NO_SERVICE),
        ("redis+sentinel://h//0", NO_SERVICE),
        ("redis+sentinel://h/my%20master", NO_SERVICE),
        ("redis://hunter2@h", NO_PASSWORD),
        ("redis://:@h", NO_PASSWORD),
        ("redis://ops:${NONE}@h", NO_PASSWORD),
        ("redis://:hunter/2@h", ENCODE),
        ("redis://:hunter2?@h", ENCODE),
        ("redis://:hunter#2@h", ENCODE),
        ("redis://:hunter@2@h", ENCODE),
        ("redis://:hunter2%@h", ENCODE),
        (
            "redis://:hunter2%ff@h",
            "the user or the password is not UTF-8 once it is decoded; write a % itself as %25",
        ),
        ("redis://h?db=2", QUERY),
        ("redis://h/0#x", QUERY),
        ("'redis://:hunter2 @h'", BLANK),
        ("${LINES}", BLANK),
    ],
)
def test_what_is_no_store_is_told_with_line_key_and_remedy_and_without_its_secret(stated, told) -> None:
    assert problem(stated) == f"config.yaml:1: store: {told}"


@pytest.mark.parametrize(
    "url", ["reddis://:hunter2@h", "redis://hunter2@h", "${LINES}", "redis://:hunter#2@h"]
)
def test_in_a_mapping_the_fault_is_that_of_its_url(url: str) -> None:
    told = problem(url).removeprefix("config.yaml:1: store: ")
    assert problem(f"\n  namespace: x\n  url: {url}") == f"config.yaml:3: store.url: {told}"


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("{url: memory}", "url: memory has no URL; write `store: memory` in place of the mapping"),
        (
            "{url: redis}",
            "url: the URL of a Redis or Valkey is needed here; write such as redis://127.0.0.1:6379",
        ),
        ("{namespace: x}", "url: is missing; write such as `url: redis://127.0.0.1:6379`"),
        (URL % "timout: 5ms", 'timout: unknown key; did you mean "timeout"?'),
        (URL % "name_space: x", 'name_space: unknown key; did you mean "namespace"?'),
        (URL % "save_for: 5s", 'save_for: unknown key; did you mean "safe_for"?'),
        (
            URL % "password: hunter2",
            "password: unknown key; known here: url, namespace, timeout, safe_for, ca, cert, key, verify",
        ),
        (URL % "namespace: a:b", f'namespace: "a:b" {NO_NAMESPACE}'),
        (URL % "namespace: '${NONE}'", f'namespace: "${{NONE}}" {NO_NAMESPACE}'),
        (
            URL % "namespace: 7",
            "namespace: text is needed here, and YAML reads this as something else; put it in quotes",
        ),
        (URL % "timeout: 0s", 'timeout: "0s" leaves no time at all; write at least 1ms'),
        (
            URL % "timeout: 2.1s",
            'timeout: "2.1s" is longer than a store may take to answer; write at most 2s',
        ),
        (
            URL % "timeout: 50",
            'timeout: "50" has no unit; write a number and ms, s, m, h or d, such as 10s',
        ),
        (URL % "safe_for: 366d", 'safe_for: "366d" is longer than a year; write at most 365d'),
        (URL % "ca: no.pem", 'ca: the file "no.pem" cannot be read; write the path of a PEM file'),
        (URL % "verify: true", f"verify: {NO_TLS}"),
        (
            "{url: rediss://h, ca: no.pem}",
            'ca: the file "no.pem" cannot be read; write the path of a PEM file',
        ),
    ],
)
def test_a_wrong_mapping_is_told_with_line_key_and_remedy(stated: str, told: str) -> None:
    first = f"config.yaml:1: store.{told}"
    if "no.pem" in stated and "rediss" not in stated:
        with pytest.raises(SettingsError) as caught:
            settings(stated)
        assert str(caught.value).splitlines() == [f"config.yaml:1: store.ca: {NO_TLS}", first]
    else:
        assert problem(stated) == first


def test_what_stands_beside_the_url() -> None:
    plain = store("redis://h")
    assert (plain.namespace, plain.timeout_s, plain.safe_for_s) == ("backpressure", 0.05, 60.0)
    assert (plain.ca, plain.cert, plain.key, plain.verify) == (None, None, None, True)
    stated = store("{url: rediss://h, namespace: a_B-1.c, timeout: 2s, safe_for: 0s, verify: false}")
    assert (stated.namespace, stated.timeout_s, stated.safe_for_s) == ("a_B-1.c", 2.0, 0.0)
    assert stated.verify is False


def test_certificates_are_found_beside_the_file(tmp_path: Path) -> None:
    ca = trustme.CA()
    made = ca.issue_cert("proxy@example.test")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "own.pem"))
    made.private_key_pem.write_to_path(str(tmp_path / "own.key"))
    file = tmp_path / "a.yaml"
    file.write_text("store: {url: rediss://h, ca: ca.pem, cert: own.pem, key: own.key}" + REST)
    stated = load(file, {}).store
    assert (stated.ca, stated.cert, stated.key) == (
        tmp_path / "ca.pem",
        tmp_path / "own.pem",
        tmp_path / "own.key",
    )
    file.write_text("store: {url: rediss://h, ca: ca.pem, cert: own.pem, verify: false}" + REST)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert str(caught.value).replace(str(file), "FILE").splitlines() == [
        "FILE:1: store.cert: needs key beside it; write store.key, or remove it",
        "FILE:1: store.verify: contradicts ca: nothing is verified; remove one of them",
    ]


@pytest.mark.parametrize("choice", OnStoreFailure)
def test_a_route_says_what_happens_without_its_store(choice: OnStoreFailure) -> None:
    assert to_policy(route(f"on_store_failure: {choice}")).routes["chat"].on_store_failure is choice


def test_a_route_goes_on_with_its_share_unless_it_says_otherwise() -> None:
    assert to_policy(settings("redis://h")).routes["chat"].on_store_failure is OnStoreFailure.SHARE


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("on_store_failure: refues", 'on_store_failure: "refues" is not known; did you mean "refuse"?'),
        ("on_store_failure: true", "on_store_failure: a word is needed here; write share or refuse or open"),
        ("on_store_falure: open", 'on_store_falure: unknown key; did you mean "on_store_failure"?'),
        ("safe_for: 60s", "safe_for: unknown key here; it belongs under store"),
    ],
)
def test_a_wrong_choice_is_told_with_its_remedy(stated: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        route(stated)
    assert str(caught.value) == f"config.yaml:3: routes[0].{told}"


@pytest.mark.parametrize(
    ("stated", "accepted"),
    [
        ("memory", True),
        ("redis+cluster://h:1,i:2", True),
        ("redis://:${PASSWORD}@h", True),
        ("${ANY}", True),
        ({"url": "${ANY}", "timeout": "5ms"}, True),
        ("redis", False),
        ("unix:///x", False),
        ({"namespace": "x"}, False),
        ({"url": "redis://h", "namespace": "a b"}, False),
    ],
)
def test_an_editor_is_told_the_same(stated: object, accepted: bool) -> None:
    schema = json_schema()
    only = {**schema, "required": []}
    assert Draft202012Validator(only).is_valid({"store": stated}) is accepted
