# SPDX-License-Identifier: Apache-2.0
import fcntl
import io
import mmap
import os
import signal
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from gpuwarden.worker.frames import Frame, FrameType
from tests.integration.worker_peer import (
    SEALS,
    LentBuffer,
    Node,
    children_of,
    sha256,
    until,
)
from tests.open_files import open_files


def cancel(request: int) -> Frame:
    return Frame(FrameType.CANCEL, request, request + 500)


ON_EITHER_THREAD = pytest.mark.parametrize("name", ["Scripted", "Quick"])


def error_of(frame: Frame) -> str:
    assert frame.meta["ok"] is False
    kind: str = frame.meta["error"]["type"]
    return kind


async def test_the_next_batch_is_prepared_while_the_gpu_runs(node: Node) -> None:
    prepared = node.gate("prepared")
    async with node.scripted() as (_, connection):
        # The first batch stays on the GPU until the second one's preprocess() lets it go.
        connection.job(1, parameters={"wait_in_predict": prepared.path})
        connection.job(2, parameters={"say_in_preprocess": prepared.path})
        results = await connection.results(2)
        assert results[1].meta["ok"]
        assert results[2].meta["ok"]


@ON_EITHER_THREAD
async def test_the_members_of_a_batch_run_together(node: Node, name: str) -> None:
    async with node.scripted(name, preprocess_processes=2) as (_, connection):
        connection.job(1, batch=9, count=2)
        connection.job(2, batch=9, count=2)
        results = await connection.results(2)
        assert [results[n].meta["answer"]["batch"] for n in (1, 2)] == [2, 2]


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_batch_is_answered_in_one_record_where_the_gateway_takes_that(
    node: Node, says_so: bool
) -> None:
    async with node.scripted(welcome={"together": says_so, "answers": False}) as (
        _,
        connection,
    ):
        assert connection.hello.meta["together"] is True
        connection.send_together(
            [connection.job_frame(number, b"", 9, 3, None, {})[0] for number in (1, 2, 3)]
        )
        results = await connection.results(3)
        assert [results[n].meta["answer"]["batch"] for n in (1, 2, 3)] == [3, 3, 3]
        assert connection.sizes[-1] == (3 if says_so else 1)


@ON_EITHER_THREAD
async def test_a_batchs_plain_answers_leave_in_one_frame_where_the_gateway_takes_that(
    node: Node, name: str
) -> None:
    async with node.scripted(name) as (_, connection):
        for number in (1, 2, 3):
            connection.job(number, batch=9, count=3)
        results = await connection.results(3)
        assert [results[n].meta["answer"]["batch"] for n in (1, 2, 3)] == [3, 3, 3]
        assert connection.kinds.count(FrameType.ANSWERS) == 1
        assert FrameType.RESULT not in connection.kinds


async def test_a_gateway_that_takes_another_form_of_answers_gets_results(node: Node) -> None:
    async with node.scripted(welcome={"answers": True}) as (_, connection):
        connection.job(1)
        assert (await connection.results(1))[1].meta["ok"]
        assert FrameType.ANSWERS not in connection.kinds


@ON_EITHER_THREAD
async def test_a_failure_among_answers_leaves_them_a_result_each(node: Node, name: str) -> None:
    async with node.scripted(name) as (_, connection):
        for number, parameters in ((1, {}), (2, {"raise_in_predict": "poison"})):
            connection.job(number, batch=9, count=2, parameters=parameters)
        results = await connection.results(2)
        assert [results[number].meta["ok"] for number in (1, 2)] == [True, False]
        assert FrameType.ANSWERS not in connection.kinds


@ON_EITHER_THREAD
async def test_answers_that_left_are_counted_soon_and_hold_up_no_end(node: Node, name: str) -> None:
    async with node.scripted(name, drain_seconds=60) as (_, connection):
        connection.job(1)
        await connection.results(1)
        await node.told_systemd("STATUS=ready: 1 answered, 0 running")
        connection.job(2)
        await connection.results(1)
        connection.send(Frame(FrameType.DRAIN))
        await connection.next_of(FrameType.BYE)


async def test_what_lies_ready_at_the_gpu_is_taken_back_for_a_cooler_card_and_who_leaves(
    node: Node,
) -> None:
    on_gpu, go_on = node.gate("on_gpu"), node.gate("go_on")
    async with node.scripted() as (_, connection):
        holding = {"say_in_predict": on_gpu.path, "wait_in_predict": go_on.path}
        connection.job(1, batch=8, parameters=holding)
        await on_gpu.reached()
        for request in (2, 3, 4):
            connection.job(request, batch=9, count=3)
        connection.send(cancel(3))
        assert error_of((await connection.results(1))[3]) == "returned"
        connection.send(Frame(FrameType.LIMIT, meta={"batch_limit": 1, "thermal_state": "alert"}))
        connection.send(Frame(FrameType.PROBE, 7))
        await connection.next_of(FrameType.PROBED)  # by then the limit is known
        go_on.open()
        results = await connection.results(3)
        assert [results[n].meta["answer"]["batch"] for n in (1, 2, 4)] == [1, 1, 1]


async def test_what_turns_out_to_be_generated_otherwise_runs_apart(node: Node) -> None:
    async with node.worker(engine="model_classes:Uniform") as _:
        connection = await node.accept_ready()
        for number, parameters in enumerate(({"top_p": 1}, {}, {"top_p": 1}, {"top_p": 0.5})):
            connection.job(number, batch=9, count=4, parameters=parameters)
        results = await connection.results(4)
        assert [results[n].meta["answer"]["batch"] for n in range(4)] == [2, 1, 2, 1]


async def test_a_limit_holds_for_the_batch_that_is_here_already_and_until_it_is_raised(
    node: Node,
) -> None:
    on_gpu, go_on = node.gate("on_gpu"), node.gate("go_on")
    async with node.scripted(preprocess_processes=2) as (_, connection):
        holding = {"say_in_predict": on_gpu.path, "wait_in_predict": go_on.path}
        connection.job(1, parameters=holding)
        await on_gpu.reached()
        for request in (2, 3):
            connection.job(request, batch=9, count=2)
        connection.send(Frame(FrameType.LIMIT, meta={"batch_limit": 1}))
        go_on.open()
        results = await connection.results(3)
        assert [results[n].meta["answer"]["batch"] for n in (2, 3)] == [1, 1]
        connection.send(Frame(FrameType.LIMIT, meta={"batch_limit": 2}))
        for request in (4, 5):
            connection.job(request, batch=10, count=2)
        results = await connection.results(2)
        assert [results[n].meta["answer"]["batch"] for n in (4, 5)] == [2, 2]


@ON_EITHER_THREAD
async def test_a_request_that_fails_leaves_its_batch(node: Node, name: str) -> None:
    async with node.scripted(name) as (worker, connection):
        connection.job(1, batch=9, count=2, parameters={"raise_in_preprocess": "Jane Roe"})
        connection.job(2, batch=9, count=2)
        results = await connection.results(2)
        assert error_of(results[1]) == "engine_error"
        assert "Jane Roe" in results[1].meta["error"]["message"]
        assert results[2].meta["answer"]["batch"] == 1
        assert "Roe" not in worker.log()
        assert "ValueError at model_classes.py:" in worker.log()


@ON_EITHER_THREAD
async def test_a_poisonous_request_fails_alone_and_nothing_of_it_is_logged(
    node: Node, name: str
) -> None:
    async with node.scripted(name) as (worker, connection):
        connection.job(1, batch=9, count=2, parameters={"raise_in_predict": "Jane Roe"})
        connection.job(2, batch=9, count=2)
        results = await connection.results(2)
        assert error_of(results[1]) == "engine_error"
        assert results[2].meta["answer"]["batch"] == 1
        assert "Roe" not in worker.log()
        assert "ValueError at model_classes.py:" in worker.log()
        assert "some.library: text withheld, from model_classes.py:" in worker.log()


async def test_a_killed_cpu_process_costs_no_request(node: Node) -> None:
    here, go = node.gate("here"), node.gate("go")
    async with node.scripted() as (worker, connection):
        said_and_waiting = {"say_in_preprocess": here.path, "wait_in_preprocess": go.path}
        connection.job(1, parameters=said_and_waiting)
        connection.job(2)
        await here.reached()
        (victim,) = children_of(worker.pid)
        os.kill(victim, signal.SIGKILL)
        await here.reached()  # by the process that took its place
        go.open()
        results = await connection.results(2)
        assert results[1].meta["answer"]["prepared_by"] != victim
        assert results[2].meta["ok"]
        assert len(children_of(worker.pid)) == 1  # no zombie


async def test_a_request_that_kills_its_processes_fails_alone(node: Node) -> None:
    async with node.scripted() as (_, connection):
        connection.job(1, parameters={"die_in_preprocess": True})
        connection.job(2)
        results = await connection.results(2)
        assert error_of(results[1]) == "worker_crashed"
        assert results[2].meta["ok"]


async def test_a_preparation_that_never_ends_is_ended(node: Node) -> None:
    never = node.gate("never")
    async with node.scripted(execution_timeout_seconds=0.5) as (_, connection):
        connection.job(1, parameters={"wait_in_preprocess": never.path})
        connection.job(2)
        results = await connection.results(2)
        assert error_of(results[1]) == "execution_timeout"
        assert results[2].meta["ok"]


async def test_cancelled_requests_leave_wherever_they_are(node: Node) -> None:
    running, busy, on_gpu = node.gate("running"), node.gate("busy"), node.gate("on_gpu")
    async with node.scripted() as (_, connection):
        gpu = {"say_in_predict": on_gpu.path, "wait_in_predict": running.path}
        connection.job(1, parameters=gpu)
        await on_gpu.reached()
        connection.job(2, batch=2, count=2)  # prepared
        being = {"say_in_preprocess": busy.path, "wait_in_preprocess": running.path}
        connection.job(3, batch=2, count=2, parameters=being)  # being prepared
        connection.job(4, batch=2, count=1)  # waits for a process
        await busy.reached()
        for request in (2, 4):
            connection.send(cancel(request))
            assert error_of((await connection.results(1))[request]) == "returned"
        connection.send(cancel(3))
        connection.send(cancel(1))  # too late: it is on the GPU
        running.open()
        running.open()
        results = await connection.results(2)
        assert error_of(results[3]) == "returned"
        assert results[1].meta["ok"]


@ON_EITHER_THREAD
async def test_a_request_past_its_deadline_is_not_run(node: Node, name: str) -> None:
    async with node.scripted(name) as (_, connection):
        connection.job(1, deadline_boottime_ns=1)
        assert error_of((await connection.results(1))[1]) == "deadline_exceeded"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"buffer": 4, "size": 10, "offset": 0, "length": 10}, "unknown_buffer"),
        ({"buffer": 4, "length": "10"}, "unknown_buffer"),
        ({"buffer": 4, "size": 10, "offset": 0, "length": 10, "fd": True}, "unknown_buffer"),
        (None, "bad_request"),
    ],
)
async def test_a_job_that_cannot_be_understood_is_answered(
    node: Node, body: Any, kind: str
) -> None:
    async with node.scripted() as (_, connection):
        connection.job(1, batch=9, count=2, body=body)
        connection.job(2, batch=9, count=2)
        results = await connection.results(2)
        assert error_of(results[1]) == kind
        assert results[2].meta["ok"]


async def test_a_buffer_that_could_shrink_is_refused(node: Node) -> None:
    buffer = LentBuffer(4, bytes(100))
    unsealed = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(unsealed, bytes(100))
    buffer.descriptor, sealed = unsealed, buffer.descriptor
    async with node.scripted() as (_, connection):
        connection.job(1, buffer)
        result = (await connection.results(1))[1]
        assert result.meta["error"]["message"] == "buffer is not sealed against shrinking"
    os.close(unsealed)
    os.close(sealed)


def example() -> bytes:
    path = get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    return Path(path).read_bytes()


def mapped_bodies(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:body")


def open_bodies(pid: int) -> int:
    return open_files(pid, "memfd:body")


def rights_of_bodies(pid: int) -> list[str]:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line.split()[1] for line in maps if "memfd:body" in line]


async def test_a_buffer_is_mapped_once_and_until_it_is_retired(node: Node) -> None:
    descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 200_000)
    ours = mmap.mmap(descriptor, 200_000)
    buffer = LentBuffer(4, b"-")
    os.close(buffer.descriptor)
    buffer.descriptor, buffer.size = descriptor, 200_000
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    async with node.scripted() as (worker, connection):
        (child,) = children_of(worker.pid)
        for request in (1, 2, 3):
            content = os.urandom(200_000)
            ours[:] = content  # the gateway uses its buffer again
            connection.job(request, buffer, first_time=request == 1)
            answer = (await connection.results(1))[request].meta["answer"]
            assert answer["sha256"] == sha256(content)
            assert (mapped_bodies(child), open_bodies(worker.pid)) == (1, 1)
            assert open_bodies(child) == 1  # Python's mapping keeps its own
        connection.send(Frame(FrameType.RETIRE, meta={"buffer": 4}))
        await until(lambda: mapped_bodies(child) == 0, "the CPU process unmapped the buffer")
        assert (open_bodies(worker.pid), open_bodies(child)) == (0, 0)
        connection.job(4, buffer, first_time=False)
        assert error_of((await connection.results(1))[4]) == "unknown_buffer"
    ours.close()
    buffer.close()


async def test_the_worker_cannot_write_into_the_buffer(node: Node) -> None:
    buffer = LentBuffer(4, bytes(100_000))
    async with node.scripted() as (worker, connection):
        connection.job(1, buffer)
        await connection.results(1)
        assert rights_of_bodies(children_of(worker.pid)[0]) == ["r--s"]
    buffer.close()


async def test_a_whole_request_can_go_to_the_gpu(node: Node) -> None:
    content = os.urandom(1_000_000)
    buffer = LentBuffer(4, content)
    async with node.worker(engine="model_classes:Whole"):
        connection = await node.accept_ready()
        connection.job(1, buffer)
        result = (await connection.results(1))[1]
        assert result.meta["answer"]["sha256"] == sha256(content)
    buffer.close()


async def test_an_answer_over_a_record_is_an_error(node: Node) -> None:
    async with node.scripted() as (_, connection):
        connection.job(1, parameters={"answer_bytes": 200_000})
        assert error_of((await connection.results(1))[1]) == "result_too_large"


async def test_real_images_are_answered_and_bad_ones_told(node: Node) -> None:
    stored = pydicom.dcmread(io.BytesIO(example())).pixel_array
    large = numpy.random.default_rng(1).integers(0, 65536, (1500, 1500)).astype("u2")
    png = io.BytesIO()
    Image.fromarray(large).save(png, "PNG", compress_level=0)
    buffer = LentBuffer(4, png.getvalue())
    async with node.worker(engine="imagestats") as worker:
        connection = await node.accept_ready()
        connection.job(1, example(), batch=9, count=2)
        connection.job(2, buffer, batch=9, count=2)
        connection.job(3, b"")
        results = await connection.results(3)
        ct = results[1].meta["answer"]
        assert (ct["min"], ct["max"]) == (stored.min(), stored.max())
        assert results[2].meta["answer"]["mean"] == pytest.approx(large.mean())
        assert results[2].meta["answer"]["bit_depth"] == 16
        assert error_of(results[3]) == "bad_image"
        before = open_files(worker.pid)
        for request in range(10, 20):
            connection.job(request, buffer, first_time=False)
            await connection.results(1)
        await until(lambda: open_files(worker.pid) <= before, "all files are closed")
    buffer.close()


async def test_a_quick_class_runs_in_the_loop_and_answers_all_in_their_order(node: Node) -> None:
    async with node.scripted("Quick", max_batch=4) as (_, connection):
        for batch in range(50):
            for request in range(4 * batch, 4 * batch + 4):
                connection.job(request, b"%d" % request, batch=batch, count=4)
            results = await connection.results(4)
            for number, result in results.items():
                assert result.meta["answer"]["sha256"] == sha256(b"%d" % number)
                assert result.meta["answer"]["thread"] == "MainThread"


async def test_many_requests_at_once_are_all_answered(node: Node) -> None:
    async with node.worker(preprocess_processes=2, max_batch=4):
        connection = await node.accept()
        credits = (await connection.next_of(FrameType.CREDIT)).count
        bodies = [os.urandom(1000) for _ in range(200)]
        answered: dict[int, Frame] = {}
        for request, body in enumerate(bodies):
            connection.job(request, body, batch=request // 4, count=4)
            if request - len(answered) >= credits - 1:
                answered.update(await connection.results(4))
        answered.update(await connection.results(200 - len(answered)))
        digests = [answered[n].meta["answer"]["body_sha256"] for n in range(200)]
        assert digests == [sha256(body) for body in bodies]
