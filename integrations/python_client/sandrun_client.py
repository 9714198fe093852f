"""SandrunClient, the earlier Python client: its methods, arguments and answers, over `sandrun`.

Programs that were written for it go on as they are; new ones use sandrun.Client, which can do more.
"""

import tarfile
import tempfile
from pathlib import Path
from typing import Any

import sandrun

_EXTENSIONS = {"python3": "py", "python": "py", "node": "js", "bash": "sh", "sh": "sh"}


class SandrunClient:
    """Prints nothing. What raised requests.HTTPError raises sandrun.Refused, whose `status` is that
    of the answer (sandrun.JobNotFound is 404); a server that cannot be reached,
    sandrun.ConnectionFailed. Both are sandrun.SandrunError.
    """

    def __init__(self, server_url: str = "http://localhost:8443") -> None:
        self.server_url = server_url.rstrip("/")

    def test_connection(self) -> bool:
        """Whether a Sandrun server answers there."""
        try:
            with self._client() as client:
                return bool(client.info().get("service") == "sandrun")
        except sandrun.SandrunError:
            return False

    def submit_directory(
        self,
        directory: str,
        entrypoint: str,
        interpreter: str = "python3",
        args: list[str] | None = None,
        outputs: list[str] | None = None,
        timeout: int = 300,
        memory_mb: int = 512,
    ) -> str:
        """The id of a job that runs `entrypoint` of the directory. All that is in it is sent, as
        before; sandrun.Client would leave out what .gitignore names, and secrets.
        """
        with tempfile.TemporaryDirectory() as folder, self._client() as client:
            archive = Path(folder) / "job.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(directory, arcname=".")
            job = client.submit(
                path=archive, entrypoint=entrypoint, interpreter=interpreter, args=args or None,
                outputs=outputs or None, timeout=timeout, memory_mb=memory_mb,
            )  # fmt: skip
            return job.id

    def submit_code(
        self, code: str, interpreter: str = "python3", filename: str | None = None
    ) -> str:
        """The id of a job that runs `code`, in a file called main.EXTENSION or `filename`."""
        name = filename or f"main.{_EXTENSIONS.get(interpreter, 'txt')}"
        with self._client() as client:
            return client.submit(code, entrypoint=name, interpreter=interpreter).id

    def get_status(self, job_id: str) -> dict[str, Any]:
        """What the server says of the job: /status in docs/api.md."""
        with self._client() as client:
            return client.job(job_id).status()

    def get_logs(self, job_id: str) -> dict[str, str]:
        """What it has printed by now: "stdout" and "stderr"."""
        with self._client() as client:
            job = client.job(job_id)
            return {
                "stdout": job.log("stdout").decode("utf-8", "replace"),
                "stderr": job.log("stderr").decode("utf-8", "replace"),
            }

    def list_outputs(self, job_id: str) -> list[str]:
        """The paths of the files that it made."""
        with self._client() as client:
            return [output["path"] for output in client.job(job_id).outputs()]

    def download_file(self, job_id: str, filename: str, save_path: str | None = None) -> bytes:
        """One of them; also written to `save_path`, if that is given."""
        with self._client() as client:
            data = client.job(job_id).download(filename)
        if save_path:
            Path(save_path).write_bytes(data)
        return data

    def wait_for_completion(self, job_id: str, poll_interval: float = 2) -> dict[str, Any]:
        """Its status, once that is "completed" or "failed". Told as soon as it is: nothing is
        polled, so `poll_interval` means nothing any more.
        """
        with self._client() as client:
            job = client.job(job_id)
            job.wait(download=False)
            return job.status()

    def run_and_wait(
        self, code: str | None = None, directory: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Submits `code` or `directory`, with the arguments of submit_code or submit_directory:
        its "job_id", "status" at the end, "logs" and "output_files".
        """
        if code:
            job_id = self.submit_code(code, **kwargs)
        elif directory:
            job_id = self.submit_directory(directory, **kwargs)
        else:
            raise ValueError("Either 'code' or 'directory' must be provided")
        return {
            "job_id": job_id,
            "status": self.wait_for_completion(job_id),
            "logs": self.get_logs(job_id),
            "output_files": self.list_outputs(job_id),
        }

    def _client(self) -> sandrun.Client:
        """Another connection for each method: nothing is left open, and threads may share us."""
        return sandrun.Client(self.server_url)
