"""Runs and versions in MLflow: an SQLite file in a folder, or the server that the environment names.

Set ``MLFLOW_TRACKING_URI`` to use a server. The file store of older tutorials (``./mlruns``) raises in
MLflow 3, so a database it is. Artifacts are safetensors and JSON: nothing here unpickles.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .gates import Report

CHAMPION, PREVIOUS = "champion", "previous"


class RegistryError(RuntimeError):
    """A request that the registry cannot or must not fulfil."""


class RefusedError(RegistryError):
    """A promotion that a gate refused; the message names the gates and what they measured."""

    def __init__(self, report: Report):
        self.report = report
        bad = [o for o in report.outcomes if not o.passed]
        told = "; ".join(f"{o.gate}: {o.measured} ({o.allowed})" for o in bad)
        super().__init__(f"{report.candidate} is refused by {len(bad)} gate(s): {told}")


@dataclass(frozen=True)
class Registry:
    """Versions of one model; aliases say which of them serves and which served before."""

    client: object
    experiment: str
    model: str

    @classmethod
    def open(cls, folder: Path, model: str = "router") -> "Registry":
        """Open (or make) the registry of ``model``: embedded in ``folder`` unless a server is named."""
        client, embedded = _client(folder)
        found = client.get_experiment_by_name(model)
        place = (folder / "artifacts").resolve().as_uri() if embedded else None
        experiment = found.experiment_id if found else client.create_experiment(model, place)
        if not client.search_registered_models(f"name = '{model}'"):
            client.create_registered_model(model)
        return cls(client, experiment, model)

    def log(
        self, files: Path, parameters: Mapping, metrics: Mapping[str, float],
        steps: Mapping[str, list[float]] | None = None,
    ) -> int:
        """Record one training run with everything under ``files``; returns its version."""
        run = self.client.create_run(self.experiment).info
        for key, value in parameters.items():
            self.client.log_param(run.run_id, key, value)
        for key, value in metrics.items():
            self.client.log_metric(run.run_id, key, value)
        for key, values in (steps or {}).items():
            for step, value in enumerate(values):
                self.client.log_metric(run.run_id, key, value, step=step)
        self.client.log_artifacts(run.run_id, str(files))
        self.client.set_terminated(run.run_id)
        made = self.client.create_model_version(self.model, run.artifact_uri, run.run_id)
        return int(made.version)

    def at(self, alias: str) -> int | None:
        """Version that ``alias`` names, or None."""
        found = self.client.get_registered_model(self.model).aliases.get(alias)
        return int(found) if found else None

    def promote(self, version: int, report: Report | None) -> None:
        """Make ``version`` the champion, if every gate lets it pass.

        ``report`` may be None for the first champion, which has nothing to be compared with.
        """
        champion = self.at(CHAMPION)
        if report is None and champion is not None:
            raise RegistryError(f"version {champion} serves: a later one needs a report of the gates")
        self._tag(version, report)
        if report is not None and not report.passed:
            raise RefusedError(report)
        if champion is not None and champion != version:
            self._point(PREVIOUS, champion)
        self._point(CHAMPION, version)

    def rollback(self) -> int:
        """Let the previous champion serve again; returns its version. Nothing is copied or loaded."""
        previous, champion = self.at(PREVIOUS), self.at(CHAMPION)
        if previous is None:
            raise RegistryError(
                f"no version of {self.model} served before {champion}: nothing to go to"
            )
        self._point(CHAMPION, previous)
        self._point(PREVIOUS, champion)
        return previous

    def files(self, version: int) -> Path:
        """Local folder with the files of a version."""
        from mlflow.artifacts import download_artifacts

        source = self.client.get_model_version(self.model, str(version)).source
        return Path(download_artifacts(artifact_uri=source))

    def tags(self, version: int) -> dict[str, str]:
        """Tags of a version: its gates and their answers."""
        return dict(self.client.get_model_version(self.model, str(version)).tags)

    def _tag(self, version: int, report: Report | None) -> None:
        for outcome in report.outcomes if report else ():
            word = "passed" if outcome.passed else "refused"
            key = f"gate.{outcome.gate.replace(' ', '_')}"
            self.client.set_model_version_tag(self.model, str(version), key, word)

    def _point(self, alias: str, version: int) -> None:
        self.client.set_registered_model_alias(self.model, alias, str(version))


def _client(folder: Path) -> tuple[object, bool]:
    """An MLflow client that reports to nobody, and whether its store is embedded."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)

    server = os.environ.get("MLFLOW_TRACKING_URI")
    folder.mkdir(parents=True, exist_ok=True)
    uri = server or f"sqlite:///{(folder / 'mlflow.db').resolve().as_posix()}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri), server is None
