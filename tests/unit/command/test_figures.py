# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engines.command.figures import figures_in

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b}"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5 1700000000000
vllm:time_to_first_token_seconds_bucket{le="+Inf"} 7
"""


def test_engines_behind_one_server_are_taken_together() -> None:
    assert figures_in(VLLM) == {"running": 4, "waiting": 0, "kv_cache_usage": 0.5}


def test_other_servers_are_known_too() -> None:
    assert figures_in("llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n") == {
        "running": 2,
        "waiting": 1,
    }
    assert figures_in('sglang:token_usage{model_name="m"} 0.28') == {"kv_cache_usage": 0.28}


def test_what_is_no_figure_is_passed_over() -> None:
    assert figures_in("vllm:num_requests_running NaN\nvllm:num_requests_waiting many\n{}") == {}


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    assert isinstance(figures_in(text), dict)
