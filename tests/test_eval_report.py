"""The tables of eval.py and its bootstrap intervals."""

import numpy as np
import pytest

from nanorap.common import UserError
from nanorap.rap.eval_report import interval, markdown, number, read_results, summary


def test_bootstrap_intervals():
    values = np.random.default_rng(0).normal(5, 2, 400)
    mean, low, high = interval(values)
    # a normal interval is ±1.96 standard errors, here of 0.1
    error = values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert abs((high - low) / (2 * 1.96 * error) - 1) < 0.1
    assert interval([3, 3, 3]) == [3, 3, 3]
    assert summary([dict(a=2)]) == dict(a=[2.0])
    assert summary([]) == {}


def test_tables():
    values = 3, 0.12345, 12.345, 123.45, 1234.5, 2.0
    assert [number(value) for value in values] == ['3', '0.123', '12.35', '123.5', '1,234', '2']
    assert markdown(('', 'a'), [('loss', '1')]) == "|      | a |\n| ---- | - |\n| loss | 1 |"


def test_results_that_cannot_be_read():
    with pytest.raises(UserError, match="can't read"):
        read_results('no.json')
