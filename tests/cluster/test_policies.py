"""NetworkPolicies where they are enforced: each pod reaches what it needs, and nothing else.

The cluster has to enforce them (`lab policies`), and its one node has to be this machine, whose root user gives a pod a public address.
"""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from components.launcher.job import SELECTOR
from components.launcher.profile import load_profile
from pipelines.kubeflow.compiler import CONTROL
from tests.cluster.lab import IMAGE, kubectl, until

pytestmark = pytest.mark.cluster
K8S = Path(__file__).parents[2] / "k8s"
PORTS = (80, 443, 7000, 8080, 8888)
PUBLIC = "128.100.3.30"  # a public address, which a pod of this test has for a minute: the side of the internet
SERVE = "import socket,time; s=[socket.create_server(('', p)) for p in map(int, {ports!r}.split(','))]; time.sleep(3600)"
TRY = """
import json, socket, sys
reached = {}
for name, (host, port) in json.loads(sys.argv[1]).items():
    try:
        socket.create_connection((host, port), 3).close()
        reached[name] = True
    except OSError:
        reached[name] = False
print(json.dumps(reached))
"""
JOB = {**SELECTOR, "edm2/stage": "training"}
PREPARING = {**SELECTOR, "edm2/stage": "prepare"}


class Network:
    """Pods of each sort, all of which listen, and from which connections are tried."""

    def __init__(self, own: str, other: str) -> None:
        self.own, self.other, self.made = own, other, list[tuple[str, str]]()
        tag = secrets.token_hex(3)
        self.pods = {
            "job": self._pod(own, f"job-{tag}", JOB),
            "peer": self._pod(own, f"peer-{tag}", JOB),
            "preparing": self._pod(own, f"preparing-{tag}", PREPARING),
            "control": self._pod(own, f"control-{tag}", CONTROL),
            "stranger": self._pod(other, f"stranger-{tag}", {}),
            "disguised": self._pod(other, f"disguised-{tag}", JOB),
            "ml-pipeline": self._pod("kubeflow", f"ml-pipeline-{tag}", {"app": "ml-pipeline"}),
        }
        for namespace, name in self.made:
            kubectl("-n", namespace, "wait", "pod", name, "--for=condition=Ready", "--timeout=120s")
        self.pods["store"] = (
            own,
            kubectl("-n", own, "get", "pods", "-l", "app.kubernetes.io/name=minio", "-o", "jsonpath={.items[0].metadata.name}"),
        )
        addresses = {name: self._address(*pod) for name, pod in self.pods.items()}
        service = kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
        self.targets: dict[str, tuple[str, int]] = {name: (address, 7000) for name, address in addresses.items() if name != "store"}
        self.targets |= {
            "store": (addresses["store"], 9000),
            "API server": (service, 443),
            "Kubeflow's API": (addresses["ml-pipeline"], 8888),
            "a stranger's web page": (addresses["stranger"], 80),
            "the internet by HTTPS": (PUBLIC, 443),
            "the internet by HTTP": (PUBLIC, 80),
            "the internet by another port": (PUBLIC, 7000),
            "a name": (f"minio.{own}.svc.cluster.local", 9000),
        }

    def _pod(self, namespace: str, name: str, labels: dict[str, str]) -> tuple[str, str]:
        image = IMAGE or load_profile("lab").images.control
        restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {
            "name": "main",
            "image": image,
            "command": ["python3", "-c", SERVE.format(ports=",".join(map(str, PORTS)))],
            "securityContext": restricted,
            "readinessProbe": {"exec": {"command": ["true"]}},
            "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
        }
        security = {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        }
        spec = {
            "containers": [container],
            "securityContext": security,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
        }
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        self.made.append((namespace, name))
        return namespace, name

    def _address(self, namespace: str, name: str) -> str:
        return kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.podIP}")

    def publish(self) -> None:
        """Give the stranger's pod a public address, and have this node send there what is for that address."""
        name = self.pods["stranger"][1]
        inside = next(path.parts[2] for path in Path("/proc").glob("[0-9]*/root/etc/hostname") if _read(path) == name)
        subprocess.run(["nsenter", "-t", inside, "-n", "ip", "address", "add", f"{PUBLIC}/32", "dev", "lo"], check=True)
        subprocess.run(["ip", "route", "replace", f"{PUBLIC}/32", "via", self.targets["stranger"][0]], check=True)

    def reached(self, source: str) -> set[str]:
        """What a pod can connect to."""
        namespace, name = self.pods[source]
        container = "user" if source == "store" else "main"
        targets = {target: where for target, where in self.targets.items() if target != source}
        printed = kubectl("-n", namespace, "exec", name, "-c", container, "--", "python3", "-c", TRY, json.dumps(targets))
        return {target for target, reached in json.loads(printed).items() if reached}

    def down(self) -> None:
        subprocess.run(["ip", "route", "delete", f"{PUBLIC}/32"])
        for namespace, name in self.made:
            kubectl("-n", namespace, "delete", "pod", name, "--wait=false")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def network(installed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder, other = tmp_path_factory.mktemp("downloads"), f"{installed}-other"
    shutil.copy(K8S / "components" / "downloads" / "networkpolicy.yaml", folder)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": installed, "resources": ["networkpolicy.yaml"]}))
    kubectl("apply", "-k", str(folder))
    kubectl("create", "namespace", other)
    network = Network(installed, other)
    try:
        network.publish()
        until(lambda: True if "job" not in network.reached("stranger") else None, 60, lambda: "NetworkPolicies are not enforced here")
        yield network
    finally:
        network.down()
        kubectl("delete", "namespace", other, "--wait=false")


INTERNET = {"the internet by HTTPS", "the internet by HTTP", "the internet by another port"}
ANYBODYS = {"a stranger's web page", "ml-pipeline", "Kubeflow's API", "API server", *INTERNET}  # no policy concerns these pods


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("job", {"peer", "preparing", "store", "a name"}),
        ("preparing", {"job", "peer", "store", "a name", "the internet by HTTPS", "the internet by HTTP"}),
        ("control", {"store", "a name", "API server", "Kubeflow's API", "the internet by HTTPS"}),  # the API server may be anywhere
        ("store", set[str]()),
        ("disguised", {"stranger", *ANYBODYS}),
        ("stranger", {"disguised", *ANYBODYS}),
    ],
)
def test_each_pod_reaches_what_it_needs_and_nothing_else(network: Network, source: str, expected: set[str]) -> None:
    assert network.reached(source) == expected
