"""`neurofv watch`: a job's progress and result, whoever began it and whenever."""

from typing import Annotated

import typer

from neurofv.cli.console import Display, reporting
from neurofv.cli.groups import Connection, Saved, grouped
from neurofv.cli.jobs import full_name
from neurofv.cli.options import JobName
from neurofv.cli.output import save, tell
from neurofv.cli.visualize import all_of, go_on, label
from neurofv.requests import volume_count
from neurofv.v1 import visualization_service_pb2 as vis


@grouped
def watch(
    name: JobName,
    files: Saved,
    connection: Connection,
    after: Annotated[int, typer.Option(min=0, help="The last event that is known; 0 for none.")] = 0,
) -> None:
    """Follow a job, from any event on, and write what it makes; leaving does not touch it."""
    with reporting(lambda: go_on(full_name(name))):
        with connection.opened() as client, Display() as display:
            job = client.job(full_name(name))
            files.check(volume_count(job.request))
            show = display.follow(label(job.request))
            if after:
                show(vis.Accepted(job=job.name, request=job.request))
            follow = all_of(show, files.keep)
            result = client.watch(job.name, after, on_event=follow, keep_snapshots=False)
            rights = files.rights(client, result.provenance.model, result.provenance.version)
        tell(result, save(result, files.output, files.picture, files.bids, rights))
