"""A run of two machines and a metadata server, simulated, whose link is cut: for good, for 30 s."""

import json
import pathlib
import shutil
import subprocess
import sys
import time

import pytest
from simulated_machines import MOUNT, Machine, Network, why_not

from tests.pipeline.test_metadata_server import PASSWORD, POSTGRES
from tokenmill.metadata.server_url import PASSWORD_VARIABLE

ROOT = pathlib.Path(__file__).parents[2]
PORT = 2222
STEPS, CUT_SECONDS = 60, 30.0


@pytest.fixture
def network(tmp_path):
    if problem := why_not():
        pytest.skip(f"needs network and mount namespaces: {problem}")
    shared = tmp_path / "shared"
    shared.mkdir()
    with Network(shared) as made:
        yield made


def test_machines_share_a_directory_and_a_network_only(network, tmp_path):
    one, other = network.add_machine("one"), network.add_machine("other")
    listen = f"""
import socket
listeners = [socket.create_server((host, {PORT})) for host in ("127.0.0.1", "{one.address}")]
print("ready", flush=True)
listeners[1].accept()
"""
    server = one.start([sys.executable, "-c", listen], tmp_path / "one.log")
    wait_for(lambda: "ready" in (tmp_path / "one.log").read_text(), 30.0, tmp_path / "one.log")

    def connects(host):
        code = f"import socket; socket.create_connection(({host!r}, {PORT}), 5).close()"
        try:
            other.run(sys.executable, "-c", code)
        except subprocess.CalledProcessError:
            return False
        return True

    assert not connects("127.0.0.1")
    network.cut("one", carrier=True)
    assert not connects("one")
    network.mend("one")
    assert connects("one")
    assert server.wait(30) == 0
    one.run("touch", "/tmp/own", str(MOUNT / "shared"))
    assert other.run("ls", "/tmp").split() == ["home"]
    assert other.run("ls", str(MOUNT)).split() == ["shared"]
    with pytest.raises(subprocess.CalledProcessError, match="exit status"):
        one.run("touch", str(ROOT / "written"))
    uptimes = [float(machine.run("cat", "/proc/uptime").split()[0]) for machine in (one, other)]
    assert uptimes[1] - uptimes[0] > 80_000
    assert [machine.run("hostname").strip() for machine in (one, other)] == ["one", "other"]


def wait_for(happened, seconds: float, log: pathlib.Path):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, log.read_text()[-6000:]
        time.sleep(0.05)


@pytest.fixture
def metadata_url(network, tmp_path):
    """PostgreSQL on a machine of its own."""
    if not POSTGRES.exists():
        pytest.skip("needs a PostgreSQL server (apt-get install postgresql)")
    machine = network.add_machine("metadata")
    home = "/tmp/postgres"
    machine.run(
        *("sh", "-c", f'mkdir {home}; printf %s "$1" > {home}/password; chown -R postgres {home}'),
        *("sh", PASSWORD),
    )
    as_user = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    machine.run(
        *as_user, str(POSTGRES / "initdb"), "-D", f"{home}/data", "-U", "mlmd",
        "-A", "scram-sha-256", f"--pwfile={home}/password",
    )  # fmt: skip
    allow = f"echo 'host all all 10.77.0.0/24 scram-sha-256' >> {home}/data/pg_hba.conf"
    machine.run("sh", "-c", allow)
    log = tmp_path / "postgres.log"
    words = ("-D", f"{home}/data", "-k", home, "-h", machine.address)
    machine.start([*as_user, str(POSTGRES / "postgres"), *words], log)
    wait_for(lambda: "ready to accept" in log.read_text(), 60.0, log)
    client = {"PGPASSWORD": PASSWORD}
    words = ("-h", "metadata", "-U", "mlmd", "runs")
    machine.run(str(POSTGRES / "createdb"), *words, environment=client)
    return "postgresql://mlmd@metadata:5432/runs"


def put_in(shared: pathlib.Path, workspace) -> None:
    """Put corpus and configuration where all machines see them."""
    shutil.copytree(workspace.corpus, shared / "corpus")
    shutil.copy(workspace.config, shared / "config.toml")


def run_command(settings: tuple[str, ...], *words: str) -> list[str]:
    """Return the words of `tokenmill run` on a machine."""
    settings_words = [word for setting in settings for word in ("--set", setting)]
    places = ("--config", "config.toml"), ("--input", "corpus"), ("--output-dir", "run")
    place_words = [word for option, name in places for word in (option, str(MOUNT / name))]
    return [sys.executable, "-m", "pipeline.cli", "run", *place_words, *settings_words, *words]


ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    PASSWORD_VARIABLE: PASSWORD,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_metadata_server_that_is_out_of_reach_is_named(
    network, metadata_url, workspace, tmp_path
):
    put_in(tmp_path / "shared", workspace)
    machine, log = network.add_machine("one"), tmp_path / "run.log"
    command = run_command((f'run.metadata_url="{metadata_url}"',), "--estimate")
    run = machine.start(command, log, ENVIRONMENT)
    wait_for(lambda: "✓ StatisticsGen" in log.read_text(), 300.0, log)
    network.cut("metadata", carrier=True)
    assert run.wait(300) == 75, log.read_text()
    said = " ".join(log.read_text().split())
    assert "error: ML Metadata's server does not answer at postgresql://mlmd@metadata:5432" in said
    assert "the same command continues" in said
    network.mend("metadata")
    again = machine.start(command, log, ENVIRONMENT)
    assert again.wait(300) == 0, log.read_text()
    (statistics,) = [line for line in log.read_text().splitlines() if "✓ StatisticsGen" in line]
    assert "cached" in statistics


class Training:
    """A chief that runs the pipeline and a worker, each on its machine."""

    def __init__(self, chief: Machine, worker: Machine, home: pathlib.Path, logs: pathlib.Path):
        self.chief, self.worker = chief, worker
        self._home, self._logs = home, logs

    def start(self, attempt: str, settings: tuple[str, ...]) -> None:
        """Start both, as docs/guides/several_machines.md says."""
        commands = {
            "chief": run_command(settings),
            "worker": [
                *(sys.executable, "-m", "components.train.distributed.worker"),
                str(MOUNT / "run" / "training"),
            ],
        }
        cluster = {"chief": [f"chief:{PORT}"], "worker": [f"worker:{PORT}"]}
        self.logs = {role: self._logs / f"{role}-{attempt}.log" for role in commands}
        self._processes = {}
        for role, machine in (("chief", self.chief), ("worker", self.worker)):
            task = {"cluster": cluster, "task": {"type": role, "index": 0}}
            environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps(task)}
            self._processes[role] = machine.start(commands[role], self.logs[role], environment)

    def steps(self) -> int:
        """Steps that the chief has written down."""
        return max((line["step"] for line in self._metrics() if "event" not in line), default=0)

    def _metrics(self):
        for path in self._home.glob("training/*/metrics.jsonl"):
            *lines, _ = path.read_text().split("\n")  # the last one may be half written
            yield from map(json.loads, lines)

    def wait_for_step(self, step: int, seconds: float = 600.0) -> None:
        def there():
            ended = {role: code for role, code in self.codes().items() if code is not None}
            assert not ended, (ended, self.said("chief"), self.said("worker"))
            return self.steps() >= step

        wait_for(there, seconds, self.logs["chief"])

    def codes(self) -> dict[str, int | None]:
        return {role: process.poll() for role, process in self._processes.items()}

    def wait(self, seconds: float) -> dict[str, int | None]:
        """Exit codes, once both have ended."""
        wait_for(lambda: None not in self.codes().values(), seconds, self.logs["chief"])
        return self.codes()

    def said(self, role: str) -> str:
        """Return what it printed, without line breaks."""
        return " ".join(self.logs[role].read_text().split())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_outlives_a_link_that_is_cut(network, metadata_url, workspace, tmp_path):
    put_in(tmp_path / "shared", workspace)
    chief, worker = network.add_machine("chief"), network.add_machine("worker")
    home = tmp_path / "shared" / "run"
    training = Training(chief, worker, home, tmp_path)
    settings = (
        f'run.metadata_url="{metadata_url}"',
        "train.strategy=multi_worker",
        f"train.max_steps={STEPS}",
        "cost.mfu=0.3",
        "execution.log_steps=1",
        "execution.checkpoint_steps=10",
        "evaluate.beat_baseline=false",  # so few steps teach less than token frequencies
    )
    training.start("first", settings)
    training.wait_for_step(STEPS // 3)
    network.cut("worker")
    assert training.wait(240.0) == {"chief": 75, "worker": 75}, training.said("chief")
    assert f"worker 1 of 2 (worker:{PORT}) was lost: no answer" in training.said("chief")
    assert f"worker 0 of 2 (chief:{PORT}) was lost: no answer" in training.said("worker")
    network.mend("worker")

    # The packets are lost without a sign, so that TCP's waits grow while the link is cut.
    reached = training.steps()
    training.start("again", settings)
    training.wait_for_step(reached + 5)
    network.cut("worker", carrier=True)
    time.sleep(CUT_SECONDS / 2)
    stood_at = training.steps()
    time.sleep(CUT_SECONDS / 2)
    assert training.steps() == stood_at < STEPS
    network.mend("worker")
    assert training.wait(900.0) == {"chief": 0, "worker": 0}, training.said("chief")

    (telemetry,) = home.glob("artifacts/Trainer/model_run/*/telemetry.json")
    told = json.loads(telemetry.read_text())
    assert (told["replicas"], told["steps"]) == (2, STEPS)
    (resume,) = told["resumes"]  # none after the second cut
    assert resume["from_step"] >= 10
    losses = [loss for _, loss in told["loss_curve"]]
    assert losses[-1] < losses[0]
    (version,) = (home / "serving_model").iterdir()
    assert (version / "saved_model.pb").exists()
    # A third machine that reaches the server finds both runs, and which of them made the model.
    elsewhere = network.add_machine("elsewhere")

    def ask(*words):
        command = (sys.executable, "-m", "pipeline.cli", *map(str, words), "--json")
        return json.loads(elsewhere.run(*command, environment=ENVIRONMENT))

    runs = [run["run"] for run in ask("runs", "--run", MOUNT / "run")]
    assert len(runs) == 2
    assert ask("lineage", MOUNT / "run" / "serving_model")["run_id"] == max(runs)
    assert not (home / "metadata.sqlite").exists()
