"""schemathesis over the OpenAPI document: whatever fits it, and what does not, is answered without a server error."""

import shutil

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from tp_retrieval.integrations.server import Limits, Settings, create_app


@pytest.mark.filterwarnings("ignore")  # schemathesis's own, and those of texts that are cut
@pytest.mark.parametrize("examples", [12, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server(whole, folder, tmp_path, mode, examples):
    shutil.copytree(folder, tmp_path / "things")  # which requests change
    settings_ = Settings(Limits(texts=20, characters=2000, hits=50), data=tmp_path / "data")
    app = create_app(whole, {"things": tmp_path / "things"}, settings=settings_, allowed_hosts=["*"])
    answered = {}
    with TestClient(app):
        for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
            operation = found.ok()
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue  # what takes nothing can't be given the wrong thing

            @given(operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=examples,
                derandomize=examples < 40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            def ask(case):
                if "name" in case.path_parameters and len(case.headers or {}) % 2 == 0:
                    case.path_parameters["name"] = "things"  # no random name is that of an index
                response = case.call()
                assert response.status_code < 500, (case.body, response.text)
                case.validate_response(response, checks=[CHECKS.get_one("response_schema_conformance")])
                answered.setdefault(case.operation.path, set()).add(response.status_code)

            ask()
    assert {"/v1/embeddings", "/v1/rerank", "/v1/search", "/v1/chat/completions"} <= set(answered)
    wanted = 200 if mode is GenerationMode.POSITIVE else 400
    assert wanted in answered["/v1/embeddings"]
    assert wanted in answered["/v1/rerank"]
    if mode is GenerationMode.POSITIVE:
        assert {200, 202} & answered["/v1/indexes/{name}/documents"]
