"""The README's table of what survives, from the figures."""

from typing import Any

# What was done, and what came of it.
_TEXTS = {
    "failpoints": (
        "`kill -9` at each of {places} failpoints, {kills} deaths",
        "{jobs} jobs: {faults} lost, run twice, with a gap or with other bits",
    ),
    "kills": (
        "`kill -9` at random moments: {of_the_worker} of the worker, {of_the_server} of the server",
        "{jobs} jobs: {faults} lost, run twice, with a gap or with other bits",
    ),
    "fuzz": (
        "{requests:,} fuzzed requests over {methods} methods",
        "{forbidden} INTERNAL or UNKNOWN; {not_serving} times not SERVING; memory +{growth_mib:.0f} MB",
    ),
    "corrupt": (
        "{cases} damaged checkpoints, bundles and volumes",
        "{wrong_volumes} wrong volumes, {not_noticed} unnoticed",
    ),
    "storage_faults": (
        "a full disk, a locked database",
        "clear statuses, {lost} faults; jobs are taken again after {full} and {locked} s, without a restart",
    ),
    "load": (
        "{watchers} watchers, {queued:,} waiting jobs, one running",
        "`GetJob` {median} ms, p99 {p99} ms; p99 {crowded} ms where {crowd} of them watch the running job",
    ),
    "soak": (
        "{fast:,} tiny jobs with invented results, {real:,} on the real worker",
        "memory +{fast_mib:.0f} and +{real_mib:.0f} MB; {leaked} leaked files, threads or processes",
    ),
    "cancel": (
        "100 cancels each way; readers that stall",
        "the optimizer has stopped after {by_rpc} ms, p99 {by_rpc_p99} ms, at most {steps} steps later; "
        "{each_mib:.1f} MB a reader",
    ),
}


def table(figures: dict[str, Any]) -> str:
    """Return the figures that there are as Markdown."""
    lines = ["<!-- Written by `make soak`. -->", "| what was done | what came of it |", "| --- | --- |"]
    for name, texts in _TEXTS.items():
        if name in figures:
            did, came = (text.format(**_values(name, figures[name])) for text in texts)
            lines.append(f"| {did} | {came} |")
    return "\n".join(lines) + "\n"


def _values(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says, by its names."""
    values = {key: len(value) if isinstance(value, list) else value for key, value in found.items()}
    if name == "storage_faults":
        full, locked = found["disk_full"], found["locked"]
        values["lost"] = len(full["faults"]) + len(locked["faults"])
        values |= {"full": full["seconds_until_taken_again"], "locked": locked["seconds_until_taken_again"]}
    if name == "load":
        crowd = found["with_a_crowd_at_the_running_job"]
        values |= {"median": found["get_job"]["median_ms"], "p99": found["get_job"]["p99_ms"]}
        values |= {"crowded": crowd["get_job"]["p99_ms"], "crowd": crowd["crowd"]}
    if name == "soak":
        fast, real = found["fast_executor"], found["real_worker"]
        values |= {"fast": fast["jobs"], "fast_mib": fast["growth_mib"]}
        values |= {"real": real["jobs"], "real_mib": real["growth_mib"]}
        values["leaked"] = len(fast["leaked"]) + len(real["leaked"])
    if name == "cancel":
        rpc, leaving = found["by_cancel_job"], found["by_leaving"]
        values |= {"by_rpc": rpc["median_ms"], "by_rpc_p99": rpc["p99_ms"]}
        values["steps"] = max(rpc["steps_after_most"], leaving["steps_after_most"])
        values["each_mib"] = found["stalled_readers"]["each_mib"]
    return values
