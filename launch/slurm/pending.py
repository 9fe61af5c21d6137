"""Why a job waits, from the reason that squeue gives: in words, and whether it will ever start."""

import re

# SLURM's own words are kept beside these: a person may look them up.
_WORDS = {
    "BeginTime": "queued again, not before its time",
    "Dependency": "after the job before it",
    "DependencyNeverSatisfied": "the job before it failed, so it never starts",
    "JobArrayTaskLimit": "as many runs of its array run as array_throttle allows",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "held; scontrol release JOB",
    "PartitionDown": "the partition is down",
    "Priority": "others go first",
    "ReqNodeNotAvail": "nodes that it needs are down or reserved",
    "Resources": "no free nodes",
}
_HELD = re.compile(r"JobHeld|DependencyNeverSatisfied|[Rr]equeued[ _](?:in[ _])?held")
_LIMIT = re.compile(r"(?:QOS|Assoc)\w*Limit|\w*MaxJobs\w*")


def is_held(reason: str) -> bool:
    """Tell whether a job waits for a person, not for its turn."""
    return _HELD.search(reason) is not None


def describe_pending(reason: str) -> str:
    """Return a reason with words, as far as it is a common one."""
    words = _WORDS.get(reason.split(",")[0], "")
    if not words and is_held(reason):
        words = "its node could not start it, or somebody queued it so; scontrol release JOB"
    if not words and _LIMIT.fullmatch(reason):
        words = "a limit of yours, or of your account or QOS"
    return f"{reason}: {words}" if words else reason
