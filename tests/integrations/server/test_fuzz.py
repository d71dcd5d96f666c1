"""schemathesis over the OpenAPI document: whatever fits it, and what does not, is answered without a server error."""

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tp_retrieval.integrations.server import Limits, Settings, create_app


@pytest.mark.filterwarnings("ignore")  # schemathesis's own, and those of texts that are cut
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_breaks_the_server(whole, folder, mode):
    app = create_app(
        whole, {"things": folder}, settings=Settings(Limits(texts=20, characters=2000, hits=50)), allowed_hosts=["*"]
    )
    answered = {}
    with TestClient(app):
        for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
            operation = found.ok()
            if mode is GenerationMode.NEGATIVE and not operation.body:
                continue  # what takes nothing can't be given the wrong thing

            @given(operation.as_strategy(generation_mode=mode))
            @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            def ask(case):
                response = case.call()
                assert response.status_code < 500, (case.body, response.text)
                answered.setdefault(case.operation.path, set()).add(response.status_code)

            ask()
    assert {"/v1/embeddings", "/v1/rerank", "/v1/search"} <= set(answered)
    wanted = 200 if mode is GenerationMode.POSITIVE else 400
    assert wanted in answered["/v1/embeddings"]
    assert wanted in answered["/v1/rerank"]
