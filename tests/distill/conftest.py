import pytest


@pytest.fixture(scope="session")
def render(truth):
    return truth
