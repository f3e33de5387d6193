"""Clusters of Flink, Spark and Prism on this machine, each part a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.engines.parts import Parts

HOST = "127.0.0.1"
WORKERS = 2
SLOTS = 2  # of each worker, so that one can take over what the other did
_HEAP_MIB = 512  # for the tasks of a worker
_START_SECONDS = 180.0
# What Flink's and Spark's own start scripts open to them on Java 17.
_OPENED = (
    "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio",
    "java.text", "java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic",
    "java.util.concurrent.locks", "sun.nio.ch", "sun.nio.cs", "sun.security.action",
    "sun.util.calendar",
)  # fmt: skip
JAVA = ["java", *(f"--add-opens=java.base/{each}=ALL-UNNAMED" for each in _OPENED)]

_FLINK = """\
jobmanager.rpc.address: {host}
jobmanager.bind-host: {host}
jobmanager.rpc.port: {rpc}
jobmanager.memory.process.size: 1g
rest.address: {host}
rest.bind-address: {host}
rest.port: {rest}
blob.server.port: {blob}
io.tmp.dirs: {directory}/tmp
taskmanager.host: {host}
taskmanager.bind-host: {host}
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: {heap}m
taskmanager.memory.task.off-heap.size: 0m
taskmanager.memory.network.min: 512m
taskmanager.memory.network.max: 512m
taskmanager.memory.segment-size: 8kb
taskmanager.memory.managed.size: 512m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
parallelism.default: {slots}
heartbeat.interval: 2000
heartbeat.timeout: 10000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 3
restart-strategy.fixed-delay.delay: 2 s
"""


@dataclass
class Cluster:
    """A running engine.

    Attributes:
        engine: flink, spark or prism.
        directory: Holds what the processes write, their logs too: NAME.log.
        job_endpoint: host:port of Beam's job service.
        worker_pool: host:port of Beam's pool of workers.
        rest: URL of Flink's REST API.
        processes: By name, such as taskmanager-0.
    """

    engine: str
    directory: Path
    job_endpoint: str = ""
    worker_pool: str = ""
    rest: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def settings(self) -> list[str]:
        """Return the keys for `tokenmill run --set`."""
        return [
            f"engine.beam={self.engine}",
            f"engine.beam_job_endpoint={self.job_endpoint}",
            f"engine.beam_worker_pool={self.worker_pool}",
            f'engine.beam_args=["--parallelism={SLOTS}"]',
        ]

    def start(
        self, name: str, command: Sequence[str], ready: Callable[[], bool], **env: str
    ) -> None:
        """Start a process and wait until it can be used.

        Raises:
            RuntimeError: It ended, or did not become ready in time; with the end of its log.
        """
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            self.processes[name] = process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**_environment(), **env},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                told = log.read_bytes()[-3000:].decode(errors="replace")
                raise RuntimeError(f"{name} of {self.engine} did not start; {log}:\n{told}")
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        """Kill a process as the kernel does that has no memory left: kill -9."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        """Stop all processes, with what they have started."""
        for process in reversed(self.processes.values()):
            for sent in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, sent)
                    process.wait(timeout=15)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue


@contextmanager
def started(engine: str, parts: Parts, directory: Path) -> Iterator[Cluster]:
    """Start an engine with a pool of workers that have the project's wheel; stop it at the end."""
    directory.mkdir(parents=True)
    cluster = Cluster(engine, directory)
    try:
        pool, worker = _free_port(), parts.python.with_name("tokenmill-beam-worker")
        cluster.start(
            "pool",
            [str(parts.python), "-m", "apache_beam.runners.worker.worker_pool_main",
             f"--service_port={pool}", f"--container_executable={worker}"],
            lambda: _listens(pool),
        )  # fmt: skip
        cluster.worker_pool = f"{HOST}:{pool}"
        {"flink": _start_flink, "spark": _start_spark, "prism": _start_prism}[engine](
            cluster, parts
        )
        yield cluster
    finally:
        cluster.stop()


def _start_flink(cluster: Cluster, parts: Parts) -> None:
    """Start a job manager, two task managers and Beam's job server for them."""
    rpc, rest, blob = (_free_port() for _ in range(3))
    configuration = cluster.directory / "conf"
    configuration.mkdir()
    (cluster.directory / "tmp").mkdir()
    values = {
        "host": HOST,
        "rpc": rpc,
        "rest": rest,
        "blob": blob,
        "slots": SLOTS,
        "heap": _HEAP_MIB,
    }
    (configuration / "config.yaml").write_text(_FLINK.format(directory=cluster.directory, **values))
    runtime = "org.apache.flink.runtime"
    cluster.rest = f"http://{HOST}:{rest}"
    java = [*JAVA, "-cp", f"{parts.cluster_jars}/*"]
    arguments = ["--configDir", str(configuration)]
    cluster.start(
        "jobmanager",
        [*java, "-Xmx512m", f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint", *arguments],
        lambda: _listens(rest),
    )
    for number in range(WORKERS):
        cluster.start(
            f"taskmanager-{number}",
            [*java, f"-Xmx{_HEAP_MIB + 128}m", "-XX:MaxDirectMemorySize=768m",
             f"{runtime}.taskexecutor.TaskManagerRunner", *arguments,
             "-D", f"taskmanager.resource-id=taskmanager-{number}"],
            lambda number=number: _answer(f"{cluster.rest}/taskmanagers").count('"id"')
            > number,
        )  # fmt: skip
    _start_job_server(
        cluster, f"{parts.job_server_jars}/*", "flink.FlinkJobServerDriver",
        f"--flink-master={HOST}:{rest}",
    )  # fmt: skip


def _start_spark(cluster: Cluster, parts: Parts) -> None:
    """Start a master, two workers and Beam's job server for them."""
    port, shown = _free_port(), _free_port()
    java = [*JAVA, "-cp", f"{parts.cluster_jars}/*"]
    deploy, master = "org.apache.spark.deploy", f"spark://{HOST}:{port}"
    own = {
        "SPARK_HOME": str(parts.cluster_jars.parent), "SPARK_SCALA_VERSION": "2.12",
        "SPARK_LOCAL_IP": HOST, "SPARK_LOCAL_DIRS": str(cluster.directory / "tmp"),
    }  # fmt: skip
    cluster.start(
        "master",
        [*java, "-Xmx512m", f"{deploy}.master.Master", "--host", HOST, "--port", str(port),
         "--webui-port", str(shown)],
        lambda: _listens(shown),
        **own,
    )  # fmt: skip
    for number in range(WORKERS):
        cluster.start(
            f"worker-{number}",
            [*java, "-Xmx256m", f"{deploy}.worker.Worker", "--host", HOST, "--webui-port",
             "0", "--cores", str(SLOTS), "--memory", f"{_HEAP_MIB + 512}m",
             "--work-dir", f"{cluster.directory}/work", master],
            lambda number=number: _answer(f"http://{HOST}:{shown}/json/").count('"worker-')
            > number,
            **own,
        )  # fmt: skip
    _start_job_server(
        cluster, f"{parts.job_server_jars}/*:{parts.cluster_jars}/*", "spark.SparkJobServerDriver",
        f"--spark-master-url={master}", f"-Dspark.executor.memory={_HEAP_MIB}m",
        f"-Dspark.driver.host={HOST}", "-Dspark.ui.enabled=false", **own,
    )  # fmt: skip


def _start_job_server(
    cluster: Cluster, jars: str, driver: str, master: str, *properties: str, **env: str
) -> None:
    """Start Beam's job service in front of a cluster."""
    job = _free_port()
    cluster.start(
        "jobserver",
        [*JAVA, "-Xmx1g", *properties, "-cp", jars, f"org.apache.beam.runners.{driver}", master,
         f"--job-port={job}", "--artifact-port=0", "--expansion-port=-1",
         f"--artifacts-dir={cluster.directory}/artifacts"],
        lambda: _listens(job),
        **env,
    )  # fmt: skip
    cluster.job_endpoint = f"localhost:{job}"


def _start_prism(cluster: Cluster, parts: Parts) -> None:
    """Start Prism, which is job service and engine in one process."""
    job, shown = _free_port(), _free_port()
    cluster.start(
        "prism",
        [str(parts.prism), f"--job_port={job}", f"--web_port={shown}", "--log_level=warn"],
        lambda: _listens(job),
    )
    cluster.job_endpoint = f"localhost:{job}"


def _environment() -> Mapping[str, str]:
    """Return this process's environment without what would bring the checkout to the workers."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def _answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""
