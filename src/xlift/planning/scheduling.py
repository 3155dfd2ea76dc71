"""How long jobs that depend on one another take on a number of workers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def list_schedule(seconds: Sequence[float], needs: Sequence[Sequence[int]], workers: int) -> float:
    """Seconds until the last job is done if a free worker always takes the job that has been ready longest.

    `needs[j]`: indices of the jobs that have to be done before job j. Graham's list scheduling (1969): at most
    (2 - 1/workers) times the best schedule, and never less than the longest chain or the work over the workers.

    Raises:
        ValueError: no worker, or jobs that wait for one another.
    """
    if workers < 1:
        raise ValueError("at least one worker is needed")
    waiting = [len(set(before)) for before in needs]
    after: list[list[int]] = [[] for _ in seconds]
    for job, before in enumerate(needs):
        for need in set(before):
            after[need].append(job)
    ready = [(0.0, job) for job, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now, done = 0.0, 0
    while ready or running:
        while ready and len(running) < workers:
            _, job = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[job], job))
        now, job = heapq.heappop(running)
        done += 1
        for next_job in after[job]:
            waiting[next_job] -= 1
            if waiting[next_job] == 0:
                heapq.heappush(ready, (now, next_job))
    if done < len(seconds):
        raise ValueError("jobs wait for one another")
    return now


def longest_chain(seconds: Sequence[float], needs: Sequence[Sequence[int]]) -> float:
    """Seconds of the longest chain of jobs, each of which waits for the one before. Inputs come before their jobs."""
    ends: list[float] = []
    for job, before in enumerate(needs):
        ends.append(seconds[job] + max((ends[need] for need in before), default=0.0))
    return max(ends, default=0.0)
