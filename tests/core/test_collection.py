"""The search for cycles of unused objects, which a short command spends a fifth of its time with if it is let."""

import gc

from dambench.core import collection


def test_what_was_imported_is_never_searched_again() -> None:
    try:
        with collection.importing():
            assert not gc.isenabled()
            made = [object()]
        assert gc.isenabled()
        assert gc.get_freeze_count()
        assert not any(one is made for one in gc.get_objects())
    finally:
        gc.unfreeze()
