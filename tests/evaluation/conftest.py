import pytest

from tests.evaluation.toy_runs import predictions


@pytest.fixture
def table():
    return predictions()
