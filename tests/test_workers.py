"""Encoders in processes of their own answer alike, and are gone afterwards."""

import pytest

from mangalab.evaluation.workers import Workers


@pytest.mark.model
def test_workers_answer_each_by_itself_and_stop():
    with Workers(2, width=16, layers=1, heads=2) as workers:
        first, second = workers([101, 2003, 102])
        again = workers([101, 2003, 102])
        assert [first, second] == again and len({p.pid for p in workers.processes}) == 2
    assert not any(p.is_alive() for p in workers.processes)
    assert [p.exitcode for p in workers.processes] == [0, 0]
