"""`dicomguard check-config`: is the configuration sound, and what does it mean."""

from pathlib import Path
from typing import Annotated

import typer

from dicomguard import config
from dicomguard.retrain import schedule
from dicomguard.store.db import shown_url


def command(
    file: Annotated[Path | None, typer.Argument(help="TOML file; else the one DICOMGUARD_CONFIG names.")] = None,
    document: Annotated[bool, typer.Option("--document", help="Print docs/configuration.md instead.")] = False,
) -> None:
    """Check a configuration and show who may send, what is analysed, and where results go.

    Example: dicomguard check-config config/dicomguard.toml
    """
    if document:
        print(config.describe(), end="")
        return
    loaded = config.load(file)
    if loaded.retrain.archive is not None and loaded.retrain.cron:
        schedule.trigger(loaded.retrain.cron, loaded.node.timezone)
    node = loaded.node
    print(f"{loaded.file or 'built-in defaults'}: sound")
    print(f"receiver   {node.ae_title} on {node.host}:{node.port}, state in {node.state}")
    if loaded.tls.port:
        print(f"with TLS   on {node.host}:{loaded.tls.port}")
    url = loaded.database.url
    print(f"database   {shown_url(url) if url else 'SQLite in the state folder'}")
    print(
        f"page       http://{loaded.web.host}:{loaded.web.port}/   health http://127.0.0.1:{loaded.web.health_port}/health"
    )
    storage = loaded.storage
    images = f"images of delivered studies after {storage.keep_days:g} days" if storage.keep_days else ""
    most = f"the oldest beyond {storage.keep_bytes} bytes" if storage.keep_bytes else ""
    answers = f"verdict and results after {storage.keep_results_days:g} days" if storage.keep_results_days else ""
    print(f"deletes    {'; '.join(filter(None, (images, most, answers))) or 'nothing'}")
    for peer in loaded.peers:
        print(f"may send   {peer.ae_title} from {', '.join(peer.networks)}")
    if not loaded.peers:
        print("may send   nobody: add a section [peers.NAME]")
    for destination in loaded.destinations:
        asked = ", asked for storage commitment" if destination.commitment else ""
        print(f"results    {destination.name}: {destination.ae_title} at {destination.host}:{destination.port}{asked}")
    for route in loaded.routes:
        senders = ", ".join(route.calling_ae_titles) or "every sender"
        categories = ", ".join(route.categories) or "every answer"
        print(f"route      {route.name}: {senders}, {categories} -> {', '.join(route.to)}")
    if not loaded.routes:
        print("route      none: results are kept and shown on the page, and sent nowhere")
    for rule in loaded.rules:
        print(f"rule       {rule.name}: {rule.action}")
    for sentence in config.doubts(loaded):
        print(f"doubtful   {sentence}")
