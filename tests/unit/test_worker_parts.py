# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpuwarden.worker import faults, notify
from gpuwarden.worker.engine import BadRequestError, Context, Engine, Request, RequestError
from gpuwarden.worker.engines.echo import Echo
from gpuwarden.worker.engines.registry import EngineNotFoundError, engine_class, make_engine
from gpuwarden.worker.faults import Failure, WorkerError
from gpuwarden.worker.gpu import GpuThread, run_batch
from gpuwarden.worker.handover import HandoverError, pack, unpack
from gpuwarden.worker.notify import Notifier, watchdog_seconds
from gpuwarden.worker.outputs import Answer, checked_answer
from gpuwarden.worker.pulse import Pulse
from gpuwarden.worker.settings import SettingsError, parse_settings, read_settings

NEEDED = {"number": 0, "engine": "echo", "model": "m", "dispatch_socket": "/run/d"}


class TestSettings:
    def test_defaults_fill_what_is_left_out(self) -> None:
        settings = parse_settings(json.dumps({**NEEDED, "gpu_uuid": None}).encode())
        assert settings.gpu_uuid == ""
        assert settings.context() == Context("m", {}, 0, None, "", 4)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"modle": "x"}, "unknown key 'modle'"),
            ({"number": "0"}, "number is '0', should be a whole number"),
            ({"number": True}, "number is True, should be a whole number"),
            ({"max_batch": 0}, "max_batch is 0, should be at least 1"),
            ({"drain_seconds": 0}, "drain_seconds is 0, should be over 0 seconds"),
            ({"log_level": "loud"}, "should be one of debug, info"),
            ({"inference_priority": "fifo:0"}, 'should be "normal" or "fifo:1" to "fifo:99"'),
            ({"inference_priority": 10}, "inference_priority is 10, should be a text"),
        ],
    )
    def test_a_wrong_key_is_named_with_what_would_be_right(
        self, changes: dict[str, Any], text: str
    ) -> None:
        with pytest.raises(SettingsError, match=text):
            parse_settings(json.dumps({**NEEDED, **changes}).encode())

    def test_every_missing_key_is_named_at_once(self) -> None:
        with pytest.raises(SettingsError, match=r"'number' is missing.*'engine' is missing"):
            parse_settings(b"{}")

    @pytest.mark.parametrize(("text", "why"), [(b"{", "not JSON"), (b"[]", "not an object")])
    def test_what_is_no_object_is_refused(self, text: bytes, why: str) -> None:
        with pytest.raises(SettingsError, match=why):
            parse_settings(text)

    def test_a_descriptor_that_was_read_before_is_read_again(self) -> None:
        descriptor = os.memfd_create("settings")
        os.write(descriptor, json.dumps(NEEDED).encode())  # leaves the offset at the end
        assert read_settings(descriptor).engine == "echo"
        os.close(descriptor)

    def test_a_descriptor_that_is_not_open_is_named(self) -> None:
        with pytest.raises(SettingsError, match="descriptor 987 cannot be read"):
            read_settings(987)


class TestEngineNames:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("ecko", "neither command nor echo nor imagestats nor transformers nor of the form"),
            ("package.module:", "of the form package.module:ClassName"),
            ("../evil:Class", "of the form package.module:ClassName"),
            ("not_there.model:Model", "module 'not_there' was not found; put its folder into"),
            ("json:Model", "module 'json' has no class 'Model'"),
            ("json:JSONEncoder", "no subclass of gpuwarden.worker.engine.Engine"),
        ],
    )
    def test_a_wrong_name_is_told_what_would_do(self, name: str, text: str) -> None:
        with pytest.raises(EngineNotFoundError, match=text):
            engine_class(name)

    def test_a_library_that_an_engine_lacks_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "needy_model.py").write_text("import torch_is_not_here\n")
        with pytest.raises(EngineNotFoundError, match="needs 'torch_is_not_here', which /"):
            make_engine("needy_model:Model", [str(tmp_path)], Context("m"))

    def test_a_path_that_is_no_folder_is_named(self) -> None:
        with pytest.raises(EngineNotFoundError, match="engine_path names '/not/there'"):
            make_engine("echo", ["/not/there"], Context("m"))

    def test_the_built_in_one_gets_its_context(self) -> None:
        engine = make_engine("echo", [], Context("m"))
        assert isinstance(engine, Echo)
        assert engine.context.model == "m"


class TestHandover:
    @pytest.mark.parametrize("count", [10, 1_000_000])
    def test_an_array_comes_over_whole_and_writable(self, count: int) -> None:
        values = numpy.arange(count, dtype="u2")
        meta, body, descriptor = pack({"pixels": values, "name": "x"})
        assert (descriptor is None) == (count == 10)
        back = unpack(json.loads(json.dumps(meta)), body, descriptor)
        assert back["name"] == "x"
        numpy.testing.assert_array_equal(back["pixels"], values)
        back["pixels"][0] = 7

    @pytest.mark.parametrize("length", [0, 5, 200_000])
    def test_a_request_takes_its_body_along(self, length: int) -> None:
        content = os.urandom(length)
        request = unpack(*pack(Request("q", "image/png", {"a": 1}, memoryview(content))))
        assert bytes(request.body) == content
        assert (request.question, request.media_type, request.parameters) == (
            "q",
            "image/png",
            {"a": 1},
        )

    def test_no_file_is_left_and_no_descriptor(self) -> None:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names, not paths
        value = unpack(*pack(numpy.zeros(1_000_000)))
        # By what this process maps: others may use the folder meanwhile.
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        shared = [line for line in mapped if "/dev/shm/" in line]
        assert shared
        assert all(line.endswith("(deleted)") for line in shared)
        del value
        assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208

    def test_what_cannot_be_pickled_is_told(self) -> None:
        with pytest.raises(HandoverError, match="must return something picklable"):
            pack(lambda: None)


class Doubling(Engine):
    def predict(self, batch: list[Any]) -> list[Any]:
        if "poison" in batch:
            raise ValueError("poison found")
        return [RequestError("odd") if item == "odd" else {"got": item} for item in batch]


def outcomes(items: list[Any], engine: Engine | None = None) -> list[Answer]:
    return run_batch(engine or Doubling(), items, lambda: None)


class TestBatchOnTheGpu:
    def test_each_item_gets_its_answer(self) -> None:
        assert outcomes(["a", "b"]) == [{"got": "a"}, {"got": "b"}]

    def test_an_item_can_fail_alone(self) -> None:
        first, second = outcomes(["odd", "b"])
        assert isinstance(first, Failure)
        assert first.message == "odd"
        assert second == {"got": "b"}

    def test_a_poisonous_item_does_not_fail_its_neighbours(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second, third = outcomes(["a", "poison", "c"])
        assert (first, third) == ({"got": "a"}, {"got": "c"})
        assert isinstance(second, Failure)
        assert second.kind == "engine_error"
        assert "poison found" in second.message
        assert "poison" not in caplog.text  # the text may quote a request
        assert "ValueError at test_worker_parts.py:" in caplog.text

    def test_a_wrong_number_of_results_is_told(self) -> None:
        class Forgetful(Engine):
            def predict(self, batch: list[Any]) -> list[Any]:
                return []

        (failure,) = outcomes(["a"], Forgetful())
        assert isinstance(failure, Failure)
        assert failure.message == "predict() gave 0 results for 1 requests"

    def test_an_engine_that_exits_fails_its_request_only(self) -> None:
        class Leaver(Engine):
            def predict(self, batch: list[Any]) -> list[Any]:
                raise SystemExit(1)

        (failure,) = outcomes(["a"], Leaver())
        assert isinstance(failure, Failure)
        assert failure.kind == "engine_error"

    @pytest.mark.parametrize(
        ("answer", "kind", "text"),
        [
            ("text", "engine_error", "must return a dict or an Output, it gave a str"),
            ({"a": float("nan")}, "engine_error", "what JSON can hold: ValueError"),
            ({"a": b"x"}, "engine_error", "what JSON can hold: TypeError"),
        ],
    )
    def test_an_answer_that_cannot_travel_is_told(
        self, answer: object, kind: str, text: str
    ) -> None:
        failure = checked_answer(answer)
        assert isinstance(failure, Failure)
        assert failure.kind == kind
        assert text in failure.message


class TestFaults:
    def test_a_location_has_no_text(self) -> None:
        try:
            raise ValueError("John Doe")
        except ValueError as error:
            where = faults.location(error)
        assert where.startswith("ValueError at test_worker_parts.py:")
        assert "Doe" not in where

    def test_what_the_caller_should_correct_keeps_its_kind(self) -> None:
        failure = faults.failure_of(BadRequestError("no question"))
        assert failure.as_meta() == {
            "ok": False,
            "error": {"type": "bad_request", "message": "no question"},
        }

    async def test_a_traceback_begins_in_the_engine(self, tmp_path: Path) -> None:
        (tmp_path / "broken_model.py").write_text("raise OSError('no weights')\n")
        gpu = GpuThread()
        loading = gpu.run(make_engine, "broken_model:Model", [str(tmp_path)], Context("m"))
        (error,) = await asyncio.gather(loading, return_exceptions=True)
        assert gpu.end(10)
        assert isinstance(error, OSError)
        text = "\n".join(faults.engine_traceback(error))
        assert "broken_model.py" in text
        assert "OSError: no weights" in text
        assert "registry.py" not in text

    def test_a_worker_error_carries_its_status(self) -> None:
        assert WorkerError("x", 70).code == 70


class TestNotify:
    def test_text_is_one_ascii_line_and_not_repeated(self) -> None:
        path = "\0gpuwarden-test-" + str(os.getpid())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(path)
            receiver.setblocking(False)
            notifier = Notifier({"NOTIFY_SOCKET": "@" + path[1:]})
            notifier.status("41 °C\nnow")
            notifier.status("41 °C now")
            notifier.ready()
            assert receiver.recv(100) == b"STATUS=41 ?C now"
            assert receiver.recv(100) == b"READY=1"
            with pytest.raises(BlockingIOError):
                receiver.recv(100)

    def test_a_full_socket_keeps_nothing_waiting_and_the_status_is_told_again(
        self, tmp_path: Path
    ) -> None:
        path = str(tmp_path / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(path)
            receiver.setblocking(False)
            notifier = Notifier({"NOTIFY_SOCKET": path})
            began = time.monotonic()
            for number in range(1000):
                notifier.status(f"busy {number}")
                notifier.watchdog()
            # Had each waited, it would be a thousand times that.
            assert time.monotonic() - began < 10 * notify.SEND_TIMEOUT_SECONDS
            with pytest.raises(BlockingIOError):
                while True:
                    receiver.recv(100)
            notifier.status("busy 999")
            assert receiver.recv(100) == b"STATUS=busy 999"

    def test_without_a_socket_nothing_happens(self) -> None:
        notifier = Notifier({})
        notifier.ready()
        notifier.status("x")

    @pytest.mark.parametrize(
        ("environment", "seconds"),
        [
            ({}, None),
            ({"WATCHDOG_USEC": "3000000"}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
            ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
            ({"WATCHDOG_USEC": "x"}, None),
        ],
    )
    def test_the_watchdog_is_for_the_process_that_systemd_means(
        self, environment: dict[str, str], seconds: float | None
    ) -> None:
        assert watchdog_seconds(environment) == seconds


class RecordingNotifier(Notifier):
    def __init__(self) -> None:
        super().__init__({})
        self.fed = 0

    def watchdog(self) -> None:
        self.fed += 1


def test_the_watchdog_is_not_fed_while_a_batch_is_past_its_time() -> None:
    notifier = RecordingNotifier()
    told: list[bool] = []
    since: list[float | None] = [None]
    pulse = Pulse(notifier, 2.0, 0.5, lambda: since[0], told.append)
    pulse.look()
    since[0] = -1e9
    pulse.look()
    pulse.look()
    since[0] = None
    pulse.look()
    assert notifier.fed == 2
    assert told == [True, False]
