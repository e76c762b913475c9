"""Two real vLLM servers on a CPU, against transformers, the offline engine, and themselves with other weights."""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
from vllm_policies import STARTER, checkpoint_of, in_one, make_requests, other_weights

from paced_rl.generation.transformers_backend import TransformersGenerator
from paced_rl.generation.vllm_backend import EngineSettings, VllmGenerator
from paced_rl.generation.vllm_requests import WORKER_EXTENSION
from paced_rl.generation.vllm_server import VllmServerGenerator
from paced_rl.types import Checkpoint, GenerationRequest, SamplingSettings

pytestmark = pytest.mark.vllm

SETTINGS = SamplingSettings(temperature=1.0, max_new_tokens=24)
START_SECONDS = 600
"""45 s on an idle core; with others at work several times as long."""

NOT_KEPT = {"Connection": "close"}
"""A server on a busy core may end a connection that was idle just when it is used again."""


@dataclass(frozen=True)
class Server:
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def kill(self) -> None:
        """Ends it and the processes of its engine at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_server(folder: Path) -> Server:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(STARTER)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--logprobs-mode", "processed_logprobs", "--worker-extension-cls", WORKER_EXTENSION]
    environment = {
        **os.environ,
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    log = folder / f"{port}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    return Server(f"http://127.0.0.1:{port}", process, log)


def is_healthy(server: Server) -> bool:
    try:
        answer = urllib3.request("GET", f"{server.url}/health", headers=NOT_KEPT, retries=False, timeout=5)
        return answer.status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Started once for the file; the last test kills one."""
    folder = tmp_path_factory.mktemp("servers")
    servers = [start_server(folder) for _ in range(2)]
    try:
        deadline = time.monotonic() + START_SECONDS
        while not all(is_healthy(server) for server in servers):
            for server in servers:
                if server.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"a vLLM server did not start:\n{server.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture(scope="module")
def generator(servers: list[Server]) -> VllmServerGenerator:
    return VllmServerGenerator(
        urls=[server.url for server in servers], dtype="float32", timeout_seconds=60, max_retries=2, max_concurrency=16
    )


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return checkpoint_of(STARTER)


@pytest.fixture(scope="module")
def requests(starter: Checkpoint) -> list[GenerationRequest]:
    return make_requests(starter)


def test_greedy_completions_are_those_of_transformers(
    generator: VllmServerGenerator, starter: Checkpoint, requests: list[GenerationRequest]
) -> None:
    # So short a limit that some completions are cut.
    settings = SamplingSettings(temperature=0.0, max_new_tokens=7)
    expected = TransformersGenerator(device="cpu", dtype="float32", batch_size=64).generate(starter, requests, settings)
    found = generator.generate(starter, requests, settings)

    for one, other in zip(in_one(found), in_one(expected), strict=True):
        assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert {str(completion.finish_reason) for completion in in_one(found)} == {"eos", "length"}


def test_completions_are_those_of_a_fresh_offline_engine_before_and_after_a_change_of_weights(
    generator: VllmServerGenerator, starter: Checkpoint, requests: list[GenerationRequest], tmp_path: Path
) -> None:
    changed = other_weights(tmp_path / "changed", seed=1)
    # A distribution without its tail, so that these settings are seen to arrive.
    cut = SamplingSettings(temperature=1.3, max_new_tokens=24, top_k=5, top_p=0.9)
    before = generator.generate(starter, requests, SETTINGS)
    after = generator.generate(changed, requests, SETTINGS)
    after_cut = generator.generate(changed, requests, cut)
    back = generator.generate(starter, requests, SETTINGS)

    offline = VllmGenerator(dtype="float32", batch_size=64, settings=EngineSettings())
    try:
        assert after == offline.generate(changed, requests, SETTINGS)
        assert after_cut == offline.generate(changed, requests, cut)
        assert before == offline.generate(starter, requests, SETTINGS)
    finally:
        offline.close()
    assert back == before
    assert before != after


def test_a_server_refuses_another_model_and_goes_on_with_its_own(
    servers: list[Server],
    generator: VllmServerGenerator,
    starter: Checkpoint,
    requests: list[GenerationRequest],
    tmp_path: Path,
) -> None:
    expected = generator.generate(starter, requests, SETTINGS)
    shutil.copytree(STARTER, tmp_path / "other_model")
    path = tmp_path / "other_model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-3}))
    for folder, problem in (("other_model", "is another model, by rms_norm_eps"), ("nowhere", "is no policy's folder")):
        body = {"method": "reload_policy", "kwargs": {"weights_path": str(tmp_path / folder)}}
        answer = urllib3.request("POST", f"{servers[0].url}/collective_rpc", json=body, headers=NOT_KEPT, retries=False)
        assert answer.status == 500
        assert problem in answer.data.decode()
    assert generator.generate(starter, requests, SETTINGS) == expected


def test_a_killed_server_loses_nothing(
    servers: list[Server],
    generator: VllmServerGenerator,
    starter: Checkpoint,
    requests: list[GenerationRequest],
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = generator.generate(starter, requests, SETTINGS)
    finished: list[int] = []

    def kill_once(num_finished: int) -> None:
        finished.append(num_finished)
        if sum(finished) == 20:
            servers[0].kill()

    with caplog.at_level(logging.WARNING):
        found = generator.generate(starter, requests, SETTINGS, on_progress=kill_once)
    assert found == expected
    assert sum(finished) == len(in_one(expected)) == 80
    assert f"vLLM server {servers[0].url}" in caplog.text
    assert generator.generate(starter, requests, SETTINGS) == expected
