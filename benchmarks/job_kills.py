"""Kills a long render at random moments and compares its film with an undisturbed one.

    python benchmarks/job_kills.py --seconds 600 --kills 10

Two jobs of the same request go through the queue: one in peace, one whose worker (the process of
`viva jobs work`, its render, or both) is killed with SIGKILL at random moments and started again.
Decoded frames are compared bit for bit; segments are counted by the render's own log of commits;
the memory of the render is sampled each second, and its growth is null ("not measured") where the
undisturbed render took less than three minutes. Not covered: a machine that loses power.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import av
import numpy as np
import psutil
import soundfile

VIVA = str(Path(sys.executable).parent / "viva")
LEASE_WAIT_S = 16.0
SETTLED_S, MEASURABLE_S = 120.0, 180.0


def viva(*words: str, data: Path) -> str:
    """What a command prints."""
    command = [VIVA, "jobs", *words, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return done.stdout.strip()


def long_speech(source: Path, seconds: float, target: Path) -> None:
    """The speech again and again."""
    samples, rate = soundfile.read(source, dtype="float32")
    soundfile.write(target, np.resize(samples, int(seconds * rate)), rate)


def frame_hashes(film: Path) -> Iterator[str]:
    """A checksum of each picture as decoded."""
    with av.open(str(film)) as container:
        for frame in container.decode(video=0):
            yield hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()


class Run:
    """One job and the worker that does it."""

    def __init__(self, folder: Path, sound: Path, segment_s: float) -> None:
        """Submit the job."""
        self.folder, self._segment_s = folder, segment_s
        folder.mkdir(parents=True)
        words = ["submit", "--portrait", "ada", "--audio", str(sound)]
        self.job_id = viva(*words, data=folder)
        self.rss_bytes: list[tuple[float, int]] = []
        self._log: TextIO | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a worker."""
        words = ["work", "--segment-s", str(self._segment_s), "--until-idle"]
        command = [VIVA, "jobs", *words, "--data", str(self.folder)]
        self._worker = subprocess.Popen(command)  # noqa: S603 - ours

    def renders(self) -> list[psutil.Process]:
        """The worker's processes that render."""
        if self._worker is None:
            return []
        try:
            return psutil.Process(self._worker.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def sample(self) -> dict[str, Any]:
        """Look at memory and segments; returns the job."""
        for process in self.renders():
            try:
                self.rss_bytes.append((time.monotonic(), process.memory_info().rss))
            except psutil.NoSuchProcess:
                continue
        self._open_log()
        job: dict[str, Any] = json.loads(viva("show", self.job_id, data=self.folder))
        return job

    def _open_log(self) -> None:
        """Hold the log of commits open as soon as it is there: it goes with the finished job."""
        path = self.folder / "work" / self.job_id / "segments" / "commits.log"
        if self._log is None and path.exists():
            self._log = path.open(encoding="ascii")

    def commits(self) -> Counter[int]:
        """How many times each segment was committed; once, after the job's end.

        Raises:
            RuntimeError: the job ended before its log was seen.
        """
        if self._log is None:
            raise RuntimeError("no log of commits was seen: render something longer")
        with self._log as log:
            return Counter(int(line) for line in log)

    def kill(self, which: str) -> None:
        """Kill the render, or the worker, whose render goes with it."""
        victims = self.renders() if which == "render" else []
        if which == "worker" and self._worker is not None:
            victims = [psutil.Process(self._worker.pid)]
        for victim in victims:
            victim.kill()
        if which == "worker" and self._worker is not None:
            self._worker.wait()
            self.start()

    def finish(self) -> None:
        """Wait for the worker."""
        if self._worker is not None:
            self._worker.wait()

    def film(self) -> Path:
        """The finished film."""
        return self.folder / "results" / f"{self.job_id}.mp4"

    def growth_mb(self) -> float | None:
        """How much more memory was used at most than soon after two minutes; None: too short."""
        began_s, ended_s = self.rss_bytes[0][0], self.rss_bytes[-1][0]
        if ended_s - began_s < MEASURABLE_S:
            return None
        late = [rss for at_s, rss in self.rss_bytes if at_s - began_s >= SETTLED_S]
        return round((max(late) - late[0]) / 1e6, 1)


def undisturbed(run: Run) -> dict[str, Any]:
    """Let a job go through."""
    run.start()
    while (job := run.sample())["state"] in ("queued", "running"):
        time.sleep(1.0)
    run.finish()
    return job


def disturbed(run: Run, num_kills: int, usual_s: float, seed: int) -> dict[str, Any]:
    """Let a job go through with kills at moments spread over its usual time."""
    chance = random.Random(seed)  # noqa: S311 - moments, no secrets
    run.start()
    began_s, spent = time.monotonic(), 0
    pauses = [chance.uniform(0.3, 1.4) * usual_s / (num_kills + 1) for _ in range(num_kills)]
    next_s = began_s + pauses[0]
    while (job := run.sample())["state"] in ("queued", "running"):
        if spent < num_kills and time.monotonic() >= next_s and run.renders():
            which = ("render", "worker")[spent % 2]
            run.kill(which)
            spent += 1
            wait_s = LEASE_WAIT_S if which == "worker" else 0.0
            next_s = time.monotonic() + wait_s + pauses[min(spent, num_kills - 1)]
        time.sleep(1.0)
    run.finish()
    job["kills"] = spent
    return job


def main() -> None:
    """Run both, compare, print one JSON object; exit status 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--segment-s", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sound = arguments.folder / "speech.wav"
    models = Path(__file__).parents[1] / "configs" / "models"
    long_speech(models / "pocket" / "speech.flac", arguments.seconds, sound)
    calm = Run(arguments.folder / "calm", sound, arguments.segment_s)
    began_s = time.monotonic()
    undisturbed(calm)
    usual_s = time.monotonic() - began_s
    killed = Run(arguments.folder / "killed", sound, arguments.segment_s)
    job = disturbed(killed, arguments.kills, usual_s, arguments.seed)
    commits = killed.commits()
    one, two = (list(frame_hashes(run.film())) for run in (calm, killed))
    report = {
        "video_s": arguments.seconds,
        "undisturbed_s": round(usual_s, 1),
        "kills": job["kills"],
        "attempts": job["attempt"],
        "frames": len(one),
        "is_identical": one == two,
        "segments": len(commits),
        "segments_made_twice": sum(count > 1 for count in commits.values()),
        "rss_growth_after_2_min_mb": calm.growth_mb(),
    }
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["is_identical"] and not report["segments_made_twice"] else 1)


if __name__ == "__main__":
    main()
