"""What goes wrong with the store while a job runs."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.launcher.profile import Profile
from edm2core.errors import EdmError
from edm2core.store import open_store
from edm2core.store.results import load
from tests.cluster.lab import EPOCHS, Lab, Undisturbed, difference, kubectl, store_elsewhere
from tests.edm2core.store.proxy import Proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def proxy(lab: Lab) -> Iterator[Proxy]:
    """Between the pods and their store, on the node."""
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    (node,) = [address["address"] for address in nodes[0]["status"]["addresses"] if address["type"] == "InternalIP"]
    proxy = Proxy(lab.endpoint, host=node)
    allowed = store_elsewhere(lab.namespace, {"ipBlock": {"cidr": f"{node}/32"}}, urlsplit(proxy.endpoint).port or 80)
    lab.apply(allowed)
    yield proxy
    proxy.close()
    kubectl("-n", lab.namespace, "delete", "networkpolicy", allowed["metadata"]["name"])


def through(profile: Profile, proxy: Proxy) -> Profile:
    """The profile with its pods' store behind the proxy."""
    store = profile.store.model_copy(update={"env": {"EDM2_S3_ENDPOINT": proxy.endpoint}})
    return profile.model_copy(update={"store": store})


def test_refusals_cut_answers_and_flipped_bits_cost_only_time(lab: Lab, undisturbed: Undisturbed, proxy: Proxy, tmp_path: Path) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    for kind, method, times in (("unavailable", "", 4), ("truncated", "GET", 4), ("dropped", "PUT", 4), ("flipped-in", "PUT", 1)):
        proxy.fault(kind, method, times=times)
    proxy.fault("flipped", "GET", "train_images")
    follower = lab.follow(training, through(profile, proxy))
    follower.wait_for_step(92)
    for kind, times in (("unavailable", 2), ("truncated", 2), ("flipped", 1)):
        proxy.fault(kind, "GET", "/state-", times=times)  # of the state that the next pods go on from
    when = follower.kill(0, 1)
    assert follower.wait_for("restart", after=when)["step"] > 0
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3
    assert [fault for fault in proxy.faults if fault.times] == []


@pytest.mark.slow
def test_the_store_may_be_away_for_half_a_minute_in_an_upload(lab: Lab, undisturbed: Undisturbed, proxy: Proxy, tmp_path: Path) -> None:
    profile, (training,) = lab.fresh([EPOCHS])
    scale = ("-n", lab.minio_namespace, "scale", "deployment/minio")

    def stop() -> None:
        kubectl(*scale, "--replicas=0")
        kubectl("-n", lab.minio_namespace, "wait", "--for=delete", "pod", "-l", "app=minio", "--timeout=30s")

    follower = lab.follow(training, through(profile, proxy))
    follower.wait_for_step(46)
    proxy.fault(stop, "PUT", "/state-")
    wait_until(lambda: proxy.happened, 120)
    time.sleep(30)
    kubectl(*scale, "--replicas=1")
    assert difference(follower.store, follower.done(), *undisturbed, tmp_path) < 1e-3
    assert not [event for event in follower.events if event["kind"] == "restart"]


def test_data_that_the_store_has_lost_are_named(lab: Lab) -> None:
    profile, (training,) = lab.fresh([2])
    store = open_store(profile.store.uri)
    data = load(store, training.inputs["data"])
    assert data is not None
    lost = "train_images.npy"
    store.delete(data.path(lost))
    with pytest.raises(EdmError) as caught:
        lab.follow(training, profile).done(120)
    assert lost in caught.value.what
    assert "\n" not in caught.value.what
