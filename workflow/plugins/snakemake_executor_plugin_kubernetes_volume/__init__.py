"""Kubernetes jobs that share a volume with whoever submits them, as the nodes of a Slurm cluster share a disk.

The plugin that this stands on takes it that nothing is shared: every file would travel through a storage service, whose
client every job would install first. Here a persistent volume holds this folder, .venv, results and artifacts, mounted
under the same path everywhere, and the rules stay what they are.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from snakemake_executor_plugin_kubernetes import Executor as WithoutVolume
from snakemake_executor_plugin_kubernetes import ExecutorSettings
from snakemake_executor_plugin_kubernetes import common_settings as without_volume
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

__all__ = ["Executor", "ExecutorSettings", "common_settings"]  # where Snakemake looks

common_settings = replace(
    without_volume, implies_no_shared_fs=False, job_deploy_sources=False, auto_deploy_default_storage_provider=False
)


class Executor(WithoutVolume):
    def get_job_exec_prefix(self, job: JobExecutorInterface) -> str:
        return f"cd {shlex.quote(str(Path.cwd()))}"
