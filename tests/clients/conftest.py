"""Where the daemon is, and clients for it."""

import os

import grpc
import openai
import pytest


@pytest.fixture(scope="session")
def model() -> str:
    return os.environ["TIDEMILL_MODEL"]


@pytest.fixture(scope="session")
def base_url() -> str:
    return f"http://{os.environ['TIDEMILL_HTTP']}/v1"


@pytest.fixture(scope="session")
def client(base_url: str) -> openai.OpenAI:
    # No retries: a failed request must be seen.
    return openai.OpenAI(base_url=base_url, api_key=os.environ.get("TIDEMILL_API_KEY", "none"), max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def grpc_address() -> str:
    return os.environ["TIDEMILL_GRPC"]


@pytest.fixture(scope="session")
def channel(grpc_address: str):
    with grpc.insecure_channel(grpc_address) as channel:
        yield channel
