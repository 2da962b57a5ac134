"""`buf curl`, which learns the API by reflection."""

import json
import os
import subprocess

SERVICES = ["Evaluation", "Inference", "Ingestion", "Pipeline", "Preprocessing", "Registry", "Training"]


def buf_curl(address: str, *arguments: str) -> str:
    buf = os.environ["TIDEMILL_BUF"]
    assert os.path.exists(buf), f"{buf} is missing; run `make setup`"
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_service_is_listed(grpc_address):
    methods = buf_curl(grpc_address, "--list-methods", f"http://{grpc_address}").split()
    for service in SERVICES:
        package = f"tidemill.{service.lower()}.v1"
        assert any(method.startswith(f"{package}.{service}Service/") for method in methods), (service, methods)
    assert any(method.startswith("grpc.health.v1.Health/") for method in methods)


def test_a_call_by_reflection_is_answered(grpc_address, model):
    url = f"http://{grpc_address}/tidemill.registry.v1.RegistryService/GetModel"
    answer = json.loads(buf_curl(grpc_address, "-d", json.dumps({"name": f"models/{model}"}), url))
    assert answer["name"] == f"models/{model}"


def test_the_server_says_that_it_is_healthy(grpc_address):
    answer = json.loads(buf_curl(grpc_address, "-d", "{}", f"http://{grpc_address}/grpc.health.v1.Health/Check"))
    assert answer["status"] == "SERVING"
