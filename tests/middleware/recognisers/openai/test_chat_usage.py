"""How the providers that speak OpenAI's chat completions report their usage."""

from typing import Any

import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.recognisers.openai.chat_usage import read_usage
from ducto_redis.middleware.recognisers.reported import InvalidReportError


def report(prompt: Any, completion: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more}


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        pytest.param(
            report(
                2006, 300, 2306,
                prompt_tokens_details={"cached_tokens": 1920, "audio_tokens": 3, "cache_write_tokens": 7},
                completion_tokens_details={
                    "reasoning_tokens": 64, "audio_tokens": 5, "accepted_prediction_tokens": 9,
                    "rejected_prediction_tokens": 8,
                },
            ),
            UsageMetrics(
                input_tokens=2006, output_tokens=300, cache_read_tokens=1920, cache_write_tokens=7,
                audio_input_tokens=3, reasoning_tokens=64, audio_output_tokens=5,
            ),
            id="openai: rejected predictions are in the completion already",
        ),
        pytest.param(
            report(976, 61, 1037, prompt_cache_hit_tokens=896, prompt_cache_miss_tokens=80),
            UsageMetrics(input_tokens=976, output_tokens=61, cache_read_tokens=896),
            id="deepseek before it had details",
        ),
        pytest.param(
            report(
                976, 61, 1037, prompt_cache_hit_tokens=896, prompt_tokens_details={"cached_tokens": 896},
                completion_tokens_details={"reasoning_tokens": 25},
            ),
            UsageMetrics(input_tokens=976, output_tokens=61, cache_read_tokens=896, reasoning_tokens=25),
            id="deepseek says the same twice",
        ),
        pytest.param(
            report(976, 61, 1037, prompt_cache_hit_tokens=896, prompt_tokens_details={"cached_tokens": 64}),
            UsageMetrics(input_tokens=976, output_tokens=61, cache_read_tokens=64),
            id="the details are believed",
        ),
        pytest.param(
            report(2989, 12, 3001, cached_tokens=2989),
            UsageMetrics(input_tokens=2989, output_tokens=12, cache_read_tokens=2989),
            id="moonshot",
        ),
        pytest.param(
            report(64, 6, 70, num_cached_tokens=32),
            UsageMetrics(input_tokens=64, output_tokens=6),
            id="mistral bills as cached what stands in the details, and this does not",
        ),
        pytest.param(
            report(500, 40, 540, cache_read_input_tokens=300, cache_creation_input_tokens=100),
            UsageMetrics(input_tokens=500, output_tokens=40, cache_read_tokens=300, cache_write_tokens=100),
            id="databricks, litellm: inside the prompt",
        ),
        pytest.param(
            report(14, 40, 454, cache_read_input_tokens=300, cache_creation_input_tokens=100),
            UsageMetrics(input_tokens=414, output_tokens=40, cache_read_tokens=300, cache_write_tokens=100),
            id="the total proves that the cache lies outside of the prompt",
        ),
        pytest.param(
            report(
                900, 40, 940,
                prompt_tokens_details={
                    "cached_tokens": 300, "cache_creation_tokens": 200,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 150,
                    },
                },
            ),
            UsageMetrics(
                input_tokens=900, output_tokens=40, cache_read_tokens=300, cache_write_tokens=200,
                cache_write_1h_tokens=150,
            ),
            id="litellm in front of anthropic",
        ),
        pytest.param(
            report(14, 2, 333, completion_tokens_details={"reasoning_tokens": 317}),
            UsageMetrics(input_tokens=14, output_tokens=319, reasoning_tokens=317),
            id="xai: reasoning beside the completion",
        ),
        pytest.param(
            report(
                14, 2, 333, prompt_tokens_details={"cached_tokens": 4},
                completion_tokens_details={"reasoning_tokens": 317},
            ),
            UsageMetrics(input_tokens=14, output_tokens=319, cache_read_tokens=4, reasoning_tokens=317),
            id="xai: a cache inside of the prompt",
        ),
        pytest.param(
            report(14, 40, 354, cache_read_input_tokens=300, reasoning_tokens=25),
            UsageMetrics(input_tokens=314, output_tokens=40, cache_read_tokens=300, reasoning_tokens=25),
            id="a cache outside of the prompt, reasoning inside of the completion",
        ),
        pytest.param(
            report(14, 40, 379, cache_read_input_tokens=300, reasoning_tokens=25),
            UsageMetrics(input_tokens=314, output_tokens=65, cache_read_tokens=300, reasoning_tokens=25),
            id="both outside",
        ),
        pytest.param(
            report(14, 2, 333, completion_tokens_details={"reasoning_tokens": 317}, num_sources_used=4),
            UsageMetrics(input_tokens=14, output_tokens=319, reasoning_tokens=317, search_results=4),
            id="xai: sources of a live search",
        ),
        pytest.param(
            report(14, 2, 16, completion_tokens_details={"reasoning_tokens": 1}, prompt_tokens_details=None),
            UsageMetrics(input_tokens=14, output_tokens=2, reasoning_tokens=1),
            id="reasoning inside the completion",
        ),
        pytest.param(
            report(21, 0, 81, completion_tokens_details={"reasoning_tokens": 60}),
            UsageMetrics(input_tokens=21, output_tokens=60, reasoning_tokens=60),
            id="a gateway that leaves all of gemini's thoughts outside",
        ),
        pytest.param(
            report(14, 5, 700, prompt_tokens_details={"cached_tokens": 300}, reasoning_tokens=300),
            UsageMetrics(input_tokens=14, output_tokens=5),
            id="parts that no total proves, and that fit into none",
        ),
        pytest.param(
            report(35, 12, 109),
            UsageMetrics(input_tokens=35, output_tokens=12),
            id="gemini names no thoughts: the completion as it is",
        ),
        pytest.param(
            report(35, None, 95),
            UsageMetrics(input_tokens=35, output_tokens=60),
            id="a completion that is left out",
        ),
        pytest.param(
            report(35, None, 35), UsageMetrics(input_tokens=35), id="a completion of zero that is left out"
        ),
        pytest.param(
            report(500, 40, 540, reasoning_tokens=25, cache_read_input_tokens=0),
            UsageMetrics(input_tokens=500, output_tokens=40, reasoning_tokens=25),
            id="databricks, modal: reasoning beside the totals, inside of the completion",
        ),
        pytest.param(
            report(
                33, 7163, 7196, citation_tokens=20016, num_search_queries=18, reasoning_tokens=73997,
                search_context_size="low", cost={"total_cost": 0.4},
            ),
            UsageMetrics(
                input_tokens=20049, output_tokens=81160, reasoning_tokens=73997, tool_prompt_tokens=20016,
                web_search_calls=18,
            ),
            id="perplexity's deep research: what it read and thought is charged beside the totals",
        ),
        pytest.param(
            report(8174, 30, 8204, server_tool_use_details={"web_search_requests": 1}, cost=0.013),
            UsageMetrics(input_tokens=8174, output_tokens=30, web_search_calls=1),
            id="openrouter",
        ),
        pytest.param(
            report(10, 3, 13, server_tool_use={"web_search_requests": 2}),
            UsageMetrics(input_tokens=10, output_tokens=3, web_search_calls=2),
            id="anthropic behind a proxy",
        ),
        pytest.param(
            report(10, 3, 13, prompt_tokens_details={"web_search_requests": 2, "cached_tokens": None}),
            UsageMetrics(input_tokens=10, output_tokens=3, web_search_calls=2),
            id="litellm's searches",
        ),
        pytest.param(
            report(10.0, 3.0, 13.0, queue_time=0.5, prompt_tokens_details={"cached_tokens": 4.0}),
            UsageMetrics(input_tokens=10, output_tokens=3, cache_read_tokens=4),
            id="numbers as a gateway writes them that knows only floats",
        ),
        pytest.param(report(0, 0, 0), UsageMetrics(), id="zero"),
    ],
)  # fmt: skip
def test_shapes(reported: dict[str, Any], expected: UsageMetrics) -> None:
    """Each provider's report becomes totals, and parts inside of them."""
    assert read_usage(reported)[0] == expected


def test_the_rest_can_be_declared_reasoning() -> None:
    """Where a deployment says so, tokens that only the total names are output that was not shown."""
    usage, whole = read_usage(report(35, 12, 109), rest_is_reasoning=True)
    assert usage == UsageMetrics(input_tokens=35, output_tokens=74, reasoning_tokens=62)
    assert whole
    usage, whole = read_usage(report(35, 12, 47), rest_is_reasoning=True)
    assert usage == UsageMetrics(input_tokens=35, output_tokens=12)


@pytest.mark.parametrize(
    "garbage",
    [
        None, [], "9", {}, report("9", 3), report(9, "3"), report(9, 3.5), report(float("nan"), 3), report(9, 10**12),
        report(-1, 3), report(9, None, 8), report(9, None, None), {"total_tokens": 12},
    ],
)  # fmt: skip
def test_garbage(garbage: Any) -> None:
    """A total that is missing, or no count, makes a report useless."""
    with pytest.raises(InvalidReportError):
        read_usage(garbage)


@pytest.mark.parametrize(
    "odd",
    [
        {"prompt_tokens_details": "none"},
        {"prompt_tokens_details": {"cached_tokens": "4"}},
        {"prompt_tokens_details": {"cached_tokens": 11}},
        {"completion_tokens_details": {"reasoning_tokens": 4}},
    ],
)
def test_a_part_without_sense_is_left_out(odd: dict[str, Any]) -> None:
    """A part that is no count, or larger than its total, is priced as plain tokens, and the report is not whole."""
    assert read_usage(report(10, 3, 13, **odd)) == (UsageMetrics(input_tokens=10, output_tokens=3), False)
