"""deploy/ and docs/replicas.md, without an engine or a cluster: they say what the code and each other say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator

from proxy.app import LAST_STEPS_S
from proxy.control.app import INDEX, OPEN_PATHS
from proxy.core.demand import TRIP_S
from proxy.core.ledger import LEASE_S, Trip
from proxy.core.policy import OnStoreFailure
from proxy.server import LAST_WORDS_S
from proxy.settings import Settings, load, parse, to_policy
from proxy.stores.contact import Phase
from proxy.stores.trips import GOODBYE_S, encode
from proxy.telemetry.catalog import CATALOG, PREFIX
from tests.packaging.dockerfile import read
from tests.packaging.test_dockerfile import environment, only

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNTIME = read((ROOT / "Dockerfile").read_text())[-1]
IMAGE = "backpressure-proxy:latest"
SERVED = Path(only(RUNTIME, "CMD").words[-1])
EVERYWHERE = "0.0.0.0"
LAST_S = LAST_WORDS_S + GOODBYE_S + LAST_STEPS_S
"""What the end takes at most when `drain` is over."""

Object = dict[str, Any]


# ── Compose ─────────────────────────────────────────────────────────────────────────────────────────

COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: Object = yaml.safe_load(COMPOSE_TEXT)
REPLICAS = {name: each for name, each in COMPOSE["services"].items() if each["image"] == IMAGE}
KEYS_FILE = "keys.env"

WORDS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}
DURATION = {"type": "string", "pattern": r"^(\d+m)?\d+s$"}


def closed(properties: Object, *required: str) -> Object:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


COMPOSE_SCHEMA = closed(
    {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "x-replica": {"type": "object"},
        "volumes": {"type": "object", "additionalProperties": {"type": ["object", "null"]}},
        "services": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": closed(
                {
                    "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:[\w.-]+$"},
                    "build": closed({"context": {"type": "string"}}, "context"),
                    "command": {
                        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
                    },
                    "env_file": {"type": "string"},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "ports": {
                        **WORDS,
                        "items": {"type": "string", "pattern": r"^(\d+\.\d+\.\d+\.\d+:)?\d+:\d+$"},
                    },
                    "volumes": {
                        **WORDS,
                        "items": {"type": "string", "pattern": r"^[\w./-]+:/[\w./-]+(:ro)?$"},
                    },
                    "depends_on": {
                        "type": "object",
                        "additionalProperties": closed(
                            {"condition": {"enum": ["service_started", "service_healthy"]}}, "condition"
                        ),
                    },
                    "healthcheck": closed(
                        {
                            "test": {"type": "array", "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                            "interval": DURATION,
                            "timeout": DURATION,
                            "retries": {"type": "integer"},
                        },
                        "test",
                    ),
                    "read_only": {"type": "boolean"},
                    "cap_drop": WORDS,
                    "security_opt": WORDS,
                    "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
                    "stop_grace_period": DURATION,
                },
                "image",
            ),
        },
    },
    "services",
)
"""Of the Compose Specification what we use of it, and nothing else: a word that is misspelt is no key."""


def seconds(duration: str) -> float:
    found = re.fullmatch(r"(?:(\d+)m)?(\d+)s", duration)
    assert found, duration
    return 60 * int(found[1] or 0) + int(found[2])


def mounted(service: Object) -> tuple[Path, Path]:
    """The folder that a service mounts, here and in the container."""
    [volume] = service["volumes"]
    source, target, mode = volume.split(":")
    assert mode == "ro"
    return (DEPLOY / source).resolve(), Path(target)


def configured(service: Object) -> tuple[Path, Settings]:
    """The file that a service serves, and what it says under the environment that the service has."""
    source, target = mounted(service)
    path = source / Path(service["command"][-1]).relative_to(target)
    written = dict.fromkeys(re.findall(rf"echo (\w+)=\S+ > deploy/{re.escape(KEYS_FILE)}", COMPOSE_TEXT), "x")
    assert written
    return path, load(path, written | service["environment"])


def test_the_compose_file_uses_the_keys_of_its_specification() -> None:
    Draft202012Validator.check_schema(COMPOSE_SCHEMA)
    faults = Draft202012Validator(COMPOSE_SCHEMA).iter_errors(COMPOSE)
    assert [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults] == []


def test_three_replicas_are_alike_but_for_their_port() -> None:
    assert len(REPLICAS) == 3
    assert len({each["ports"][0] for each in REPLICAS.values()}) == 3
    rest = [{**each, "ports": []} for each in REPLICAS.values()]
    assert rest == rest[:1] * 3
    assert rest[0] == {**COMPOSE["x-replica"], "ports": []}


@pytest.mark.parametrize("name", sorted(REPLICAS))
def test_a_replica_of_compose_serves_a_file_that_loads_and_counts_in_the_redis_beside_it(name: str) -> None:
    service = REPLICAS[name]
    path, settings = configured(service)
    assert path.parent == ROOT / "config"
    assert to_policy(settings).routes
    [(host, port)] = settings.store.hosts
    assert port == 6379
    assert host in COMPOSE["services"]
    assert service["depends_on"][host]["condition"] == "service_healthy"
    assert "healthcheck" in COMPOSE["services"][host]


@pytest.mark.parametrize("name", sorted(REPLICAS))
def test_a_replica_of_compose_agrees_with_the_image(name: str) -> None:
    service = REPLICAS[name]
    _, settings = configured(service)
    assert only(RUNTIME, "ENTRYPOINT").words == ["backpressure"]
    assert service["command"][:-1] == only(RUNTIME, "CMD").words[:-1]
    assert mounted(service)[1] == Path(*only(RUNTIME, "VOLUME").words)
    assert (DEPLOY / service["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    [port] = service["ports"]
    assert port.rpartition(":")[2] == str(settings.listen.port) == only(RUNTIME, "EXPOSE").words[0]
    assert settings.listen.host == EVERYWHERE
    assert port.startswith("127.0.0.1:")  # it adds the provider's key to any call
    assert seconds(service["stop_grace_period"]) > settings.drain_s + LAST_S


@pytest.mark.parametrize("name", sorted(REPLICAS))
def test_the_health_of_a_replica_of_compose_is_asked_where_its_control_plane_is(name: str) -> None:
    service = REPLICAS[name]
    _, settings = configured(service)
    [variable] = [name for name in environment(RUNTIME) if name in service["environment"]]
    assert variable in only(RUNTIME, "HEALTHCHECK").rest
    asked = urlsplit(service["environment"][variable])
    assert (asked.hostname, asked.port) == (settings.admin.listen.host, settings.admin.listen.port)
    assert asked.path in OPEN_PATHS


def test_what_compose_names_is_there() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_dir() if "/" in source else source in COMPOSE["volumes"], source
    assert {each["env_file"] for each in REPLICAS.values()} == {KEYS_FILE}
    assert f"deploy/{KEYS_FILE}" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_redis_of_compose_forgets_nothing_and_is_reached_by_nobody_else() -> None:
    redis = COMPOSE["services"]["redis"]
    assert "--maxmemory-policy noeviction" in redis["command"]
    assert "ports" not in redis


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────────

VERSIONS = {
    "ConfigMap": "v1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
}
KUBERNETES_TEXT = (DEPLOY / "kubernetes.yaml").read_text()
OBJECTS: dict[str, Object] = {each["kind"]: each for each in yaml.safe_load_all(KUBERNETES_TEXT)}
POD: Object = OBJECTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]
SECRETS = dict.fromkeys(re.findall(r"--from-literal=(\w+)=", KUBERNETES_TEXT), "x" * 32) | {
    "REDIS_URL": "redis://:secret@redis:6379/0"
}
"""What the command in the file's first lines creates."""


def embedded() -> tuple[str, Settings]:
    [(name, text)] = OBJECTS["ConfigMap"]["data"].items()
    return name, parse(text, name, SECRETS)


def port_named(name: str) -> int:
    [port] = [each["containerPort"] for each in CONTAINER["ports"] if each["name"] == name]
    return int(port)


def selectors() -> Iterator[Object]:
    for kind in ("Deployment", "PodDisruptionBudget"):
        selector = OBJECTS[kind]["spec"]["selector"]
        assert list(selector) == ["matchLabels"]
        yield selector["matchLabels"]
    yield OBJECTS["Service"]["spec"]["selector"]
    for spread in POD["spec"]["topologySpreadConstraints"]:
        yield spread["labelSelector"]["matchLabels"]


def test_each_object_is_of_a_version_that_kubernetes_serves() -> None:
    written = [(each["kind"], each["apiVersion"]) for each in yaml.safe_load_all(KUBERNETES_TEXT)]
    assert sorted(written) == sorted(VERSIONS.items())
    assert {each["metadata"]["name"] for each in OBJECTS.values()} == {"backpressure"}


def test_every_selector_finds_the_pods() -> None:
    found = list(selectors())
    assert len(found) == 5
    for labels in found:
        assert labels
        assert labels.items() <= POD["metadata"]["labels"].items()


def test_every_port_that_is_named_is_one_of_the_container() -> None:
    probes = [CONTAINER[probe]["httpGet"]["port"] for probe in CONTAINER if probe.endswith("Probe")]
    targets = [port["targetPort"] for port in OBJECTS["Service"]["spec"]["ports"]]
    assert len(probes) == 3
    assert set(probes) == {"admin"}
    assert targets == ["http"]
    _, settings = embedded()
    assert port_named("http") == settings.listen.port
    assert port_named("admin") == settings.admin.listen.port
    assert sorted(only(RUNTIME, "EXPOSE").words) == sorted(
        str(p["containerPort"]) for p in CONTAINER["ports"]
    )


def test_the_probes_ask_what_the_control_plane_answers_without_a_token() -> None:
    paths = {probe: CONTAINER[probe]["httpGet"]["path"] for probe in CONTAINER if probe.endswith("Probe")}
    assert set(paths.values()) == set(OPEN_PATHS)
    assert set(OPEN_PATHS) <= set(INDEX)
    assert paths["readinessProbe"] == "/readyz"
    assert paths["livenessProbe"] == paths["startupProbe"] == "/healthz"  # of Redis neither knows


def test_the_configuration_in_the_map_loads_and_is_where_the_image_looks_for_it() -> None:
    name, settings = embedded()
    assert to_policy(settings).routes
    assert settings.store.shared
    assert (settings.listen.host, settings.admin.listen.host) == (EVERYWHERE, EVERYWHERE)
    assert settings.admin.token is not None
    [volume] = POD["spec"]["volumes"]
    [mount] = CONTAINER["volumeMounts"]
    assert volume["configMap"]["name"] == OBJECTS["ConfigMap"]["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert "subPath" not in mount  # it would never be brought a change
    assert Path(mount["mountPath"]) / name == SERVED
    assert not {"command", "args"} & set(CONTAINER)


def test_every_variable_of_the_configuration_is_a_key_of_the_secret() -> None:
    [text] = OBJECTS["ConfigMap"]["data"].values()
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(SECRETS)
    [source] = CONTAINER["envFrom"]
    assert f"create secret generic {source['secretRef']['name']} " in KUBERNETES_TEXT


def test_a_pod_has_time_to_drain() -> None:
    _, settings = embedded()
    [sleep, pause_s] = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert POD["spec"]["terminationGracePeriodSeconds"] > int(pause_s) + settings.drain_s + LAST_S


def test_a_pod_may_do_as_little_as_the_image_needs() -> None:
    user, _, group = only(RUNTIME, "USER").rest.partition(":")
    of_pod = POD["spec"]["securityContext"]
    assert of_pod == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert CONTAINER["image"] == IMAGE


def test_the_autoscaler_goes_by_a_metric_that_there_is() -> None:
    scaler = OBJECTS["HorizontalPodAutoscaler"]["spec"]
    [name] = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"]
    assert name.startswith(PREFIX)
    assert CATALOG[name.removeprefix(PREFIX)].kind == "gauge"
    assert f"seriesQuery: '{name}{{" in KUBERNETES_TEXT
    target, deployment = scaler["scaleTargetRef"], OBJECTS["Deployment"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert scaler["minReplicas"] <= deployment["spec"]["replicas"] <= scaler["maxReplicas"]
    assert OBJECTS["PodDisruptionBudget"]["spec"]["maxUnavailable"] < scaler["minReplicas"]


# ── docs/replicas.md ────────────────────────────────────────────────────────────────────────────────

PAGE = (ROOT / "docs" / "replicas.md").read_text()
BEHIND = """
upstreams: {a: {url: http://a, dialect: rest}}
routes: [{name: r, path: /, upstream: a}]
"""


def test_the_page_is_short_and_its_links_lead_somewhere() -> None:
    assert len(PAGE.splitlines()) <= 180
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_page_tells_each_phase_and_each_choice() -> None:
    rows = dict(re.findall(r"(?m)^\| `(\w+)` \| (.*)", PAGE))
    assert set(rows) == set(Phase)
    assert set(OnStoreFailure) <= set(re.findall(r"`(\w+)`", rows[Phase.GIVEN_UP]))


def test_the_page_tells_the_keys_and_the_times_of_the_code() -> None:
    keys, _ = encode(Trip("r", 1, []), "backpressure")
    assert len(keys) == 2
    assert all(f"`{key}`" in PAGE for key in keys)
    assert f"lease of {LEASE_S:g} s" in PAGE
    assert f"one EVALSHA per {TRIP_S:g} s" in PAGE


def test_the_yaml_of_the_page_loads() -> None:
    blocks = re.findall(r"(?s)```yaml\n(.*?)```", PAGE)
    assert blocks
    for block in blocks:
        assert parse(block + BEHIND, "page", SECRETS).store.shared
