"""A client generated from proto/ by Google's own compiler."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from tidemill.inference.v1 import inference_service_pb2 as inference
from tidemill.inference.v1 import inference_service_pb2_grpc as inference_grpc
from tidemill.ingestion.v1 import ingestion_service_pb2 as ingestion
from tidemill.ingestion.v1 import ingestion_service_pb2_grpc as ingestion_grpc
from tidemill.pipeline.v1 import pipeline_service_pb2 as pipeline
from tidemill.pipeline.v1 import pipeline_service_pb2_grpc as pipeline_grpc
from tidemill.registry.v1 import registry_service_pb2 as registry
from tidemill.registry.v1 import registry_service_pb2_grpc as registry_grpc
from tidemill.training.v1 import training_service_pb2 as training
from tidemill.training.v1 import training_service_pb2_grpc as training_grpc
from tidemill.type.v1 import job_pb2, measure_pb2

PROMPT = "The state of our Union is"


def details(error: grpc.RpcError) -> dict:
    """What a failed call carries besides its code, by type."""
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    status = status_pb2.Status.FromString(packed)
    found = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.ResourceInfo):
        for detail in status.details:
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.DESCRIPTOR.name] = message
    return found


@pytest.fixture(scope="module")
def serving(channel):
    return inference_grpc.InferenceServiceStub(channel)


def test_an_answer_streams_and_leaves_a_receipt(serving, model):
    request = inference.GenerateRequest(
        model=model, prompt=PROMPT, sampling=measure_pb2.SamplingParameters(max_tokens=12, seed=4), store=True
    )
    parts = list(serving.GenerateStream(request, timeout=60))
    assert len({part.answer for part in parts}) == 1
    assert [part.finish_reason for part in parts[:-1]] == [""] * (len(parts) - 1)
    receipt = serving.GetAnswer(inference.GetAnswerRequest(name=parts[-1].answer), timeout=10)
    assert receipt.completion == "".join(part.text for part in parts)
    assert receipt.prompt == PROMPT
    assert receipt.finish_reason == parts[-1].finish_reason in ("stop", "length")
    again = serving.Generate(request, timeout=60)
    assert again.text == receipt.completion
    assert again.answer.model_digest == receipt.model_digest


def test_all_wrong_parameters_are_named_at_once(serving, model):
    sampling = measure_pb2.SamplingParameters(temperature=-1, top_k=-1, top_p=2, max_tokens=-1)
    with pytest.raises(grpc.RpcError) as raised:
        serving.Generate(inference.GenerateRequest(model=model, prompt=PROMPT, sampling=sampling), timeout=10)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    fields = {violation.field for violation in details(raised.value)["BadRequest"].field_violations}
    assert fields == {"sampling.temperature", "sampling.top_k", "sampling.top_p", "sampling.max_tokens"}


def test_what_does_not_exist_is_not_found_with_a_reason(channel):
    stub = registry_grpc.RegistryServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModel(registry.GetModelRequest(name="models/nowhere"), timeout=10)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND
    info = details(raised.value)["ErrorInfo"]
    assert info.reason.isupper() and info.domain.endswith("tidemill")


def test_lists_come_in_pages_that_fit_together(channel):
    stub = ingestion_grpc.IngestionServiceStub(channel)
    versions = stub.ListDatasetVersions(ingestion.ListDatasetVersionsRequest(parent="datasets/-"), timeout=10).dataset_versions
    version = next(version for version in versions if version.record_count > 5)

    def page(size, token=""):
        return stub.ListRecords(ingestion.ListRecordsRequest(parent=version.name, page_size=size, page_token=token), timeout=10)

    whole = [record.digest for record in page(6).records]
    first = page(3)
    second = page(3, first.next_page_token)
    assert [record.digest for record in [*first.records, *second.records]] == whole
    with pytest.raises(grpc.RpcError) as raised:
        page(3, "nonsense")
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_job_that_has_ended_is_watched_to_its_end_at_once(channel):
    stub = training_grpc.TrainingServiceStub(channel)
    jobs = stub.ListTrainingJobs(training.ListTrainingJobsRequest(), timeout=10).training_jobs
    job = next(job for job in jobs if job.state == job_pb2.STATE_SUCCEEDED)
    last = list(stub.WatchTrainingJob(training.WatchTrainingJobRequest(name=job.name), timeout=10))[-1]
    assert last.state == job_pb2.STATE_SUCCEEDED
    losses = [point.metrics["loss"] for point in last.history if "loss" in point.metrics]
    assert losses[-1] < losses[0]
    log = "".join(part.text for part in stub.ReadTrainingJobLog(training.ReadTrainingJobLogRequest(name=job.name), timeout=10))
    assert log.endswith("\n")


def test_a_retried_create_answers_with_the_first_result(channel):
    stub = registry_grpc.RegistryServiceStub(channel)
    request = registry.CreateModelRequest(
        model=registry.Model(description="made by a test"), request_id="0e1f6f5e-6d53-4e0c-8a0b-5d2c0f6a9b11"
    )
    assert stub.CreateModel(request, timeout=10) == stub.CreateModel(request, timeout=10)


def test_feedback_and_lineage_know_the_answers_model(channel, serving, model):
    answer = serving.Generate(inference.GenerateRequest(model=model, prompt=PROMPT, store=True), timeout=60).answer
    feedback = ingestion.Feedback(
        answer=answer.name, prompt=answer.prompt, completion=answer.completion or "x", rating=ingestion.Feedback.RATING_UP,
        consent=False, model=answer.model, model_digest=answer.model_digest,
    )
    stub = ingestion_grpc.IngestionServiceStub(channel)
    stored = stub.CreateFeedback(ingestion.CreateFeedbackRequest(feedback=feedback), timeout=10)
    assert stub.GetFeedback(ingestion.GetFeedbackRequest(name=stored.name), timeout=10) == stored

    lineage = registry_grpc.RegistryServiceStub(channel).GetLineage(
        registry.GetLineageRequest(id=answer.model_digest, direction=registry.GetLineageRequest.DIRECTION_BACK), timeout=10
    )
    kinds = {node.type for node in lineage.nodes}
    assert {registry.LineageNode.TYPE_MODEL, registry.LineageNode.TYPE_PREPARED_DATASET, registry.LineageNode.TYPE_DATASET} <= kinds


def test_a_pipeline_with_several_mistakes_hears_of_all(channel):
    stub = pipeline_grpc.PipelineServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.CreatePipeline(pipeline.CreatePipelineRequest(pipeline=pipeline.Pipeline(spec=pipeline.PipelineSpec())), timeout=10)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert len(details(raised.value)["BadRequest"].field_violations) >= 5
