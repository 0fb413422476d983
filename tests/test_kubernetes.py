"""The Kubernetes profile against a stand-in for the API, on loopback, that runs a job's container as a bare process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from replication.__main__ import main as replication
from replication.experiment.scale import load_scale
from replication.planning.plan import plan
from tests.small import write_scale

ROOT = Path(__file__).parent.parent
EXHIBIT = "rskd/table16"


class Cluster(ThreadingHTTPServer):
    """Keeps the jobs it was sent, and ran each to its end before it answered."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Api)
        self.folder = folder
        self.jobs: list[tuple[str, dict[str, Any]]] = []
        self.status: dict[str, int] = {}

    def create(self, path: str, job: dict[str, Any]) -> None:
        name = job["metadata"]["name"]
        [container] = job["spec"]["template"]["spec"]["containers"]
        workdir = self.folder / name
        workdir.mkdir()
        # a container knows nothing of the shell that submitted it
        bare = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(workdir)}
        command = [*container["command"], *container["args"]]
        with (self.folder / f"{name}.log").open("w") as log:
            self.status[name] = subprocess.call(command, cwd=workdir, env=bare, stdout=log, stderr=log)
        self.jobs.append((path, job))


class Api(BaseHTTPRequestHandler):
    server: Cluster

    def answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/jobs"):
            self.server.create(self.path, sent)
        self.answer(sent)

    def do_GET(self) -> None:
        name = self.path.removesuffix("/status").rpartition("/")[2]
        if "/jobs/" in self.path:
            self.answer({"kind": "Job", "status": {"failed" if self.server.status[name] else "succeeded": 1}})
        else:
            self.answer({"kind": "PodList", "items": []})

    def do_DELETE(self) -> None:
        self.answer({"status": "Success"})

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "pods").mkdir()
    with Cluster(tmp_path / "pods") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def access(cluster: Cluster, tmp_path: Path) -> Path:
    """What a user's kubectl would read."""
    content = {
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{cluster.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "current-context": "here",
    }
    path = tmp_path / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_job_trains_on_the_volume_with_nothing_but_its_command(
    cluster: Cluster, access: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = ["--scale", str(write_scale(tmp_path))]
    found = plan([EXHIBIT], load_scale(scale[1]), [0])
    for name, value in {"RESULTS": "results", "ARTIFACTS": "artifacts"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert replication(["step", EXHIBIT, "--runs", *found.teachers, *scale]) == 0
    # one of the students is left to the cluster; of the others Snakemake only asks whether they are there
    left = next(id for id, run in found.runs.items() if not run.recipe.uses_teacher)
    records = {id: tmp_path / "results/small" / id / "summary.json" for id in found.runs}
    for path in records.keys() - {left}:
        records[path].parent.mkdir()
        records[path].write_text("{}")

    environment = os.environ | {"KUBECONFIG": str(access), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "workflow", EXHIBIT, *scale, "--profile", "kubernetes"]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    logs = "".join(path.read_text() for path in cluster.folder.glob("*.log"))
    assert answer.returncode == 0, answer.stderr + logs
    assert json.loads(records[left].read_text())["metrics"]["lm_loss"] > 0

    [(where, job)] = cluster.jobs
    assert where == "/apis/batch/v1/namespaces/default/jobs"
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "python:3.11"
    assert {"name": "distillation", "mountPath": "/distillation"} in container["volumeMounts"]
    assert {"name": "distillation", "persistentVolumeClaim": {"claimName": "distillation"}} in pod["volumes"]
    # Kubernetes gives out no GPU that is only requested
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    # a pod has no home folder of ours
    assert str(Path.home()) not in container["args"][1].replace(str(ROOT), "").replace(str(tmp_path), "")
