import pytest
from toy_runs import predictions


@pytest.fixture
def table():
    return predictions()
