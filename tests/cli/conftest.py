from contextlib import closing
from pathlib import Path

import pytest

from dambench.store.runs import Store
from tests.ledger import add, config


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    with closing(Store.open(tmp_path / "runs.db", write=True)) as store:
        add(store, config("dm", ipc=1), [0.90, 0.91, 0.92])
        add(store, config("random", ipc=1), [0.60, 0.61, 0.62])
        add(store, config("whole"), [0.98, 0.99, 0.98])
    return tmp_path / "runs.db"
