"""Sampling by servers that fail in every way a server may; they follow a script, so that every completion is known."""

import hashlib
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_vllm_server import EOS, Failure, FakeVllmServer, scripted_tokens, weights_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from paced_rl.generation import vllm_dispatch
from paced_rl.generation.vllm_dispatch import NoReplicaLeftError
from paced_rl.generation.vllm_server import VllmServerGenerator
from paced_rl.generation.vllm_server_worker import PolicyReload
from paced_rl.starter import build_character_tokenizer, build_tiny_qwen2, write_policy_folder
from paced_rl.types import Checkpoint, Completion, FinishReason, GenerationRequest, SamplingSettings

SETTINGS = SamplingSettings(temperature=1.0, max_new_tokens=6)
REQUESTS = [
    GenerationRequest(prompt_token_ids=(5, 6, 7 + index), seeds=tuple(2**62 + 100 * index + i for i in range(5)))
    for index in range(8)
]
NUM_COMPLETIONS = 40
PUSH = [
    "/update_weight_version",
    "/pause",
    "/collective_rpc reload_policy",
    "/reset_prefix_cache",
    "/update_weight_version",
    "/resume",
    "/weight_info",
]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_dispatch, "FIRST_WAIT_SECONDS", 0.01)


def make_checkpoint(folder: Path, version: int) -> Checkpoint:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return Checkpoint(folder=folder, files=files, metadata={"policy_version": version})


@pytest.fixture(scope="module")
def checkpoint(tiny_policy_folder: Path) -> Checkpoint:
    return make_checkpoint(tiny_policy_folder, 0)


@pytest.fixture(scope="module")
def next_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Another version of that policy."""
    folder = tmp_path_factory.mktemp("next_policy")
    tokenizer = build_character_tokenizer("0123456789 +-*/()>:")
    model = build_tiny_qwen2(
        tokenizer, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_positions=128, seed=2
    )
    write_policy_folder(model, tokenizer, folder)
    return make_checkpoint(folder, 1)


def make_generator(
    *servers: FakeVllmServer, timeout_seconds: float = 10.0, max_retries: int = 2, max_concurrency: int = 3
) -> VllmServerGenerator:
    return VllmServerGenerator(
        urls=[server.url for server in servers],
        dtype="float32",
        timeout_seconds=timeout_seconds,
        max_retries=max_retries,
        max_concurrency=max_concurrency,
    )


def assert_scripted(groups: list[tuple[Completion, ...]], checkpoint: Checkpoint) -> None:
    """Every completion is there once, in its place, as the script has it for this policy."""
    assert [len(group) for group in groups] == [len(request.seeds) for request in REQUESTS]
    for request, group in zip(REQUESTS, groups, strict=True):
        for seed, completion in zip(request.seeds, group, strict=True):
            ids, log_probs = scripted_tokens(weights_of(checkpoint.folder), request.prompt_token_ids, seed, 6)
            assert (list(completion.token_ids), list(completion.log_probs)) == (ids, log_probs)
            assert completion.finish_reason is (FinishReason.EOS if ids[-1] == EOS else FinishReason.LENGTH)


def asked_of(*servers: FakeVllmServer) -> Counter[tuple[tuple[int, ...], int]]:
    return Counter(entry for server in servers for entry in server.asked)


ALL_ONCE = Counter((request.prompt_token_ids, seed) for request in REQUESTS for seed in request.seeds)


def test_servers_share_the_work_and_every_completion_is_asked_for_once(checkpoint: Checkpoint) -> None:
    both_at_work = threading.Barrier(2)

    def meet(server: FakeVllmServer, number: int) -> None:
        if number == 1:
            both_at_work.wait(10)

    finished: list[int] = []
    with FakeVllmServer(on_completion=meet) as one, FakeVllmServer(on_completion=meet) as other:
        groups = make_generator(one, other).generate(checkpoint, REQUESTS, SETTINGS, on_progress=finished.append)
    assert_scripted(groups, checkpoint)
    assert {len(group) for group in groups} == {5}
    assert len({completion.finish_reason for group in groups for completion in group}) == 2
    assert asked_of(one, other) == ALL_ONCE
    assert one.asked
    assert other.asked
    assert sum(finished) == NUM_COMPLETIONS
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    visible = [token for token in groups[0][0].token_ids if token != EOS]
    assert groups[0][0].text == "".join(tokenizer.convert_ids_to_tokens(visible))


def test_a_server_is_told_the_whole_distribution(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as server:
        sampling = SamplingSettings(temperature=0.7, max_new_tokens=6, top_p=0.9, top_k=3)
        make_generator(server).generate(checkpoint, REQUESTS[:1], sampling)
    body = server.bodies[0]
    wanted = {"temperature": 0.7, "top_p": 0.9, "top_k": 3, "min_p": 0, "repetition_penalty": 1, "logprobs": 0}
    assert {name: body[name] for name in wanted} == wanted
    assert (body["stop_token_ids"], body["ignore_eos"], body["return_token_ids"]) == ([EOS], True, True)
    assert "n" not in body


def test_weights_are_pushed_when_and_only_when_they_differ(checkpoint: Checkpoint, next_checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as server:
        generator = make_generator(server)
        for policy, push in ((checkpoint, PUSH), (checkpoint, []), (next_checkpoint, PUSH), (checkpoint, PUSH)):
            server.control.clear()
            assert_scripted(generator.generate(policy, REQUESTS, SETTINGS), policy)
            assert server.control == ["/server_info", "/weight_info", *push, "/weight_info"]


def test_weights_from_somebody_else_are_pushed_again_whatever_their_name(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as server:
        generator = make_generator(server)
        generator.generate(checkpoint, REQUESTS, SETTINGS)
        server.weights = "as after a change of weights that went wrong without a word"
        generator.close()  # as the canary does
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        server.weights = "as above"
        assert_scripted(make_generator(server).generate(checkpoint, REQUESTS, SETTINGS), checkpoint)


def test_a_gpu_server_without_the_extension_reloads_by_itself(checkpoint: Checkpoint) -> None:
    with FakeVllmServer(device="cuda", extension="") as server:
        assert_scripted(make_generator(server).generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
    assert "/collective_rpc reload_weights" in server.control


@pytest.mark.parametrize("max_concurrency", [1, 64])
def test_a_server_that_fails_now_and_then_is_asked_again(checkpoint: Checkpoint, max_concurrency: int) -> None:
    def fail(server: FakeVllmServer, number: int) -> None:
        if number in (1, 2, 7):
            raise Failure(503, "busy")

    with FakeVllmServer(on_completion=fail) as server:
        groups = make_generator(server, max_concurrency=max_concurrency).generate(checkpoint, REQUESTS, SETTINGS)
    assert_scripted(groups, checkpoint)
    assert asked_of(server).total() == NUM_COMPLETIONS + 3


def test_the_work_of_a_server_that_dies_goes_to_the_others(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    def die(server: FakeVllmServer, number: int) -> None:
        if number == 5:
            server.die()

    finished: list[int] = []
    with FakeVllmServer(on_completion=die) as mortal, FakeVllmServer() as other:
        generator = make_generator(mortal, other)
        with caplog.at_level(logging.WARNING):
            groups = generator.generate(checkpoint, REQUESTS, SETTINGS, on_progress=finished.append)
        assert_scripted(groups, checkpoint)
        assert sum(finished) == NUM_COMPLETIONS
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
    assert mortal.url in caplog.text


@pytest.mark.parametrize("max_concurrency", [3, 40])
def test_the_work_of_a_server_that_hangs_goes_to_the_others(checkpoint: Checkpoint, max_concurrency: int) -> None:
    with FakeVllmServer(on_completion=lambda server, number: server.hang()) as mute, FakeVllmServer() as other:
        generator = make_generator(mute, other, timeout_seconds=1.0, max_concurrency=max_concurrency)
        groups = generator.generate(checkpoint, REQUESTS, SETTINGS)
    assert_scripted(groups, checkpoint)
    assert 1 <= len(mute.asked) <= max_concurrency
    assert max(asked_of(mute).values()) == 1
    assert asked_of(other) == ALL_ONCE


def test_when_every_server_is_lost_the_error_says_why_for_each(checkpoint: Checkpoint) -> None:
    def fail(server: FakeVllmServer, number: int) -> None:
        raise Failure(500, "EngineCore encountered an issue")

    with (
        FakeVllmServer(on_completion=lambda server, number: server.hang()) as mute,
        FakeVllmServer(on_completion=fail) as ill,
        pytest.raises(NoReplicaLeftError) as caught,
    ):
        make_generator(mute, ill, timeout_seconds=0.5).generate(checkpoint, REQUESTS, SETTINGS)
    message = str(caught.value)
    assert "the 40 completions that are missing" in message
    assert f"{mute.url}: POST /v1/completions was not answered within 0.5 s" in message
    assert f"{ill.url}: POST /v1/completions gave HTTP 500" in message
    assert "EngineCore encountered an issue" in message
    assert "rollout.vllm_server.urls" in message


def test_servers_that_are_not_there_are_named(checkpoint: Checkpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    generator = VllmServerGenerator(urls=[url], dtype="float32", timeout_seconds=1, max_retries=1, max_concurrency=1)
    with pytest.raises(NoReplicaLeftError, match=f"{url}: .*Connection refused"):
        generator.generate(checkpoint, REQUESTS, SETTINGS)


def test_a_server_that_comes_back_is_asked_again_and_given_the_weights(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as late, FakeVllmServer() as other:
        late.info["vllm_config"] = "starting"
        generator = make_generator(late, other)
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert late.asked == []
        other.die()
        late.info |= other.info
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert asked_of(late) == ALL_ONCE


def change_choice(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda answer: {**answer, "choices": [{**answer["choices"][0], **changes}]}


@pytest.mark.parametrize(
    "edit",
    [
        lambda answer: b"<html>",
        lambda answer: b"\xff\xfe",
        lambda answer: [answer],
        lambda answer: {**answer, "choices": []},
        lambda answer: {**answer, "choices": answer["choices"] * 2},
        change_choice(prompt_token_ids=[5, 6]),
        change_choice(token_ids=[]),
        change_choice(token_ids=None),
        change_choice(token_ids="7"),
        change_choice(token_ids=[7, 8, 9, 10, 11, 12, 13], logprobs={"token_logprobs": [-1.0] * 7}),  # too long
        change_choice(token_ids=[7, 8], logprobs={"token_logprobs": [-1.0] * 2}, finish_reason="length"),  # cut short
        change_choice(token_ids=[7, EOS, 8, EOS], logprobs={"token_logprobs": [-1.0] * 4}, finish_reason="stop"),
        change_choice(token_ids=[7, EOS], logprobs={"token_logprobs": [-1.0]}, finish_reason="stop"),
        change_choice(token_ids=[7, EOS], logprobs={"token_logprobs": [-1.0, 0.5]}, finish_reason="stop"),
        change_choice(token_ids=[7, EOS], logprobs={"token_logprobs": [-1.0, None]}, finish_reason="stop"),
        change_choice(logprobs=None),
        change_choice(finish_reason="abort"),
    ],
)
def test_an_answer_that_cannot_be_one_is_refused(checkpoint: Checkpoint, edit: Callable[[dict[str, Any]], Any]) -> None:
    with FakeVllmServer(edit=edit) as mad, FakeVllmServer() as sane:
        assert_scripted(make_generator(mad, sane).generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert mad.asked
        sane.die()
        with pytest.raises(NoReplicaLeftError, match=r"does not fit the request|gave an answer that is none"):
            make_generator(mad).generate(checkpoint, REQUESTS[:1], SETTINGS)


def test_a_server_that_cannot_take_the_weights_gives_no_completions(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as broken, FakeVllmServer() as other:
        broken.reload_error = "the folder is no policy's folder on the machine of this vLLM server"
        generator = make_generator(broken, other)
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert broken.asked == []
        assert broken.is_paused
        # A second reload would hang a real engine whose first one failed.
        broken.control.clear()
        assert_scripted(generator.generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert broken.control == ["/server_info", "/weight_info"]
        with pytest.raises(NoReplicaLeftError, match="an earlier change of its weights failed: start it anew"):
            make_generator(broken).generate(checkpoint, REQUESTS, SETTINGS)


def test_a_server_that_does_not_keep_its_version_gives_no_completions(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as stale, FakeVllmServer() as other:
        respond = stale.answer
        stale.answer = lambda path, body: (  # type: ignore[method-assign]
            {"weight_version": "default"} if path == "/weight_info" else respond(path, body)
        )
        assert_scripted(make_generator(stale, other).generate(checkpoint, REQUESTS, SETTINGS), checkpoint)
        assert stale.asked == []
        with pytest.raises(NoReplicaLeftError, match="it has the weights 'default' and not 'round-0-"):
            make_generator(stale).generate(checkpoint, REQUESTS, SETTINGS)


def change_weights(server: FakeVllmServer, number: int) -> None:
    """As if another experiment used the server too."""
    if number == 4:
        server.version, server.weights = "round-9-somebody-elses", "somebody else's"


def test_what_a_server_gave_while_its_weights_changed_is_asked_of_another(checkpoint: Checkpoint) -> None:
    with FakeVllmServer(on_completion=change_weights) as shared, FakeVllmServer() as other:
        groups = make_generator(shared, other).generate(checkpoint, REQUESTS, SETTINGS)
        assert_scripted(groups, checkpoint)
        assert asked_of(shared)
        assert asked_of(other) == ALL_ONCE
        shared.on_completion, shared.asked = change_weights, []
        problem = rf"the 40 completions that are missing:\n  {shared.url}: it has the weights 'round-9-somebody-elses'"
        with pytest.raises(NoReplicaLeftError, match=problem):
            make_generator(shared).generate(checkpoint, REQUESTS, SETTINGS)


def test_a_server_that_was_started_again_under_way_is_asked_no_more(checkpoint: Checkpoint) -> None:
    def restart(server: FakeVllmServer, number: int) -> None:
        if number == 4:
            server.version, server.weights = "default", "those it was started with"
            raise Failure(500, "shutting down")

    with FakeVllmServer(on_completion=restart) as young, FakeVllmServer() as other:
        groups = make_generator(young, other, max_concurrency=1).generate(checkpoint, REQUESTS, SETTINGS)
    assert_scripted(groups, checkpoint)
    assert len(young.asked) == 4


@pytest.mark.parametrize(
    ("settings_of_server", "option"),
    [
        ({"dtype": "bfloat16"}, r"--dtype float32 \(it has torch.bfloat16\)"),
        ({"logprobs_mode": "raw_logprobs"}, r"--logprobs-mode processed_logprobs \(it has raw_logprobs\)"),
        ({"max_model_len": 8}, r"--max-model-len 9 or more \(it has 8\)"),
        ({"extension": ""}, r"--worker-extension-cls paced_rl\S+PolicyReload \(it has none\)"),
    ],
)
def test_a_server_that_was_started_otherwise_is_told_how(
    checkpoint: Checkpoint, settings_of_server: dict[str, Any], option: str
) -> None:
    problem = f"it must be started with {option}"
    with FakeVllmServer(**settings_of_server) as server, pytest.raises(NoReplicaLeftError, match=problem):
        make_generator(server).generate(checkpoint, REQUESTS, SETTINGS)
    assert server.control == ["/server_info"]


def test_no_server_sees_what_is_refused_or_empty(checkpoint: Checkpoint) -> None:
    with FakeVllmServer() as server:
        generator = make_generator(server)
        long = GenerationRequest(prompt_token_ids=(5,) * 123, seeds=(1,))
        with pytest.raises(ValueError, match="the prompt of request 1 has 123 tokens; with max_new_tokens=6 it may"):
            generator.generate(checkpoint, [REQUESTS[0], long], SETTINGS)
        assert generator.generate(checkpoint, [], SETTINGS) == []
        no_seeds = GenerationRequest(prompt_token_ids=(5,), seeds=())
        assert generator.generate(checkpoint, [no_seeds], SETTINGS) == [()]
        generator.close()
    assert (server.control, server.asked) == ([], [])


def test_the_backend_needs_servers() -> None:
    with pytest.raises(ValueError, match=r"set rollout.vllm_server.urls"):
        make_generator()


@given(
    st.lists(st.sets(st.integers(1, 30), max_size=12), min_size=2, max_size=3),
    st.lists(st.integers(1, 30), min_size=2, max_size=3),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_lost_or_doubled_whatever_fails(
    checkpoint: Checkpoint, failures: list[set[int]], deaths: list[int]
) -> None:
    def misbehave(fails_at: set[int], dies_at: int) -> Callable[[FakeVllmServer, int], None]:
        def on_completion(server: FakeVllmServer, number: int) -> None:
            if number == dies_at:
                server.die()
            if number in fails_at:
                raise Failure(500, "now and then")

        return on_completion

    finished: list[int] = []
    with ExitStack() as stack:
        servers = [
            stack.enter_context(FakeVllmServer(on_completion=misbehave(fails_at, dies_at)))
            for fails_at, dies_at in zip(failures, deaths, strict=False)
        ]
        servers.append(stack.enter_context(FakeVllmServer()))
        groups = make_generator(*servers).generate(checkpoint, REQUESTS, SETTINGS, on_progress=finished.append)
    assert_scripted(groups, checkpoint)
    assert sum(finished) == NUM_COMPLETIONS


def test_a_worker_looks_for_the_folder_before_it_touches_weights(tmp_path: Path) -> None:
    worker = PolicyReload()
    worker.reload_weights = lambda **arguments: pytest.fail("the weights were touched")
    with pytest.raises(FileNotFoundError, match="no policy's folder on the machine of this vLLM engine"):
        worker.reload_policy(str(tmp_path / "elsewhere"))


def test_a_server_without_its_development_endpoints_is_told_so(checkpoint: Checkpoint) -> None:
    def only_completions(path: str, body: dict[str, Any]) -> Any:
        raise Failure(404, "Not Found")

    with FakeVllmServer() as server:
        server.answer = only_completions  # type: ignore[method-assign]
        with pytest.raises(NoReplicaLeftError, match=r"HTTP 404: .*; was it started with VLLM_SERVER_DEV_MODE=1\?"):
            make_generator(server).generate(checkpoint, REQUESTS, SETTINGS)
