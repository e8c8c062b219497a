from pathlib import Path

import pytest

from edm2core.errors import EdmError
from edm2core.plan.manifest import Ref
from edm2core.store import open_store
from edm2core.store.scratch import Scratch
from edm2core.worker.rendezvous import MOST, record_rendezvous, rendezvous_of

REF = Ref("trajectory", "k")


def test_each_rendezvous_is_recorded_beside_the_states_and_outlives_its_process(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    record_rendezvous(store, REF, 1, 2)
    Scratch(store, REF.scratch, 1).put("state-0", b"a state", {"epochs": 1.5})
    record_rendezvous(store, REF, 2, 4)
    records = rendezvous_of(Scratch(open_store(str(tmp_path)), REF.scratch, 3))
    assert [(record["number"], record["processes"], record["states"]) for record in records] == [(1, 2, [None, None]), (2, 4, [1.5, None])]


def test_too_many_rendezvous_without_a_newer_state_end_in_words_and_the_next_start_may_try_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    Scratch(store, REF.scratch, 1).put("state-1", b"a state", {"epochs": 2.25})
    for number in range(1, MOST + 2):
        record_rendezvous(store, REF, number, 2)
    with pytest.raises(EdmError, match=f"began {MOST + 2} times from its state at epoch 2.25 without saving a newer one") as error:
        record_rendezvous(store, REF, MOST + 2, 2)
    assert error.value.permanent
    record_rendezvous(store, REF, MOST + 3, 2)


def test_a_newer_state_begins_the_count_anew(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1, 3 * MOST):
        if number % MOST == 0:
            Scratch(store, REF.scratch, number).put(f"state-{number // MOST % 2}", b"a state", {"epochs": number / 10})
        record_rendezvous(store, REF, number, 2)
