import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.serving.test_http import HELLO

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter.get_finished_spans
    provider.shutdown()


def ask(server, path="/v1/chat/completions", *, traced=True, **body):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"} if traced else {}
    return server.post(path, headers=headers, model="base", **body)


def test_an_answer_is_a_span_of_the_callers_trace_by_the_genai_conventions(server, spans):
    answer = ask(server, messages=HELLO, max_tokens=6, temperature=0.5, seed=7, stop=["zz"])
    (span,) = spans()
    usage = answer.json()["usage"]
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert span.name == "chat base"
    said = dict(span.attributes)
    first_s = said.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first_s <= (span.end_time - span.start_time) / 1e9
    assert said.pop("gen_ai.response.id") == answer.headers["X-Request-Id"]
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "sluiceway",
        "gen_ai.request.model": "base",
        "gen_ai.response.model": "base",
        "gen_ai.request.max_tokens": 6,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("zz",),
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.usage.cache_read.input_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "gen_ai.response.finish_reasons": (answer.json()["choices"][0]["finish_reason"],),
        "sluice.tenant": "acme",
        "sluice.arm": "stable",
    }


def test_a_failed_answer_is_a_failed_span_that_names_the_error(server, spans):
    ask(server, "/v1/completions", prompt=[5] * 600, max_tokens=1)
    (span,) = spans()
    assert span.name == "text_completion base"
    assert span.attributes["error.type"] == "ContextExceeded"
    assert not span.status.is_ok


def test_a_request_without_a_trace_makes_no_span(server, spans):
    assert ask(server, messages=HELLO, max_tokens=1, traced=False).status_code == 200
    assert spans() == ()
