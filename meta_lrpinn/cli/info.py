"""`meta-lrpinn info`: what there is on this machine and in this package."""

import argparse
import json

from meta_lrpinn._version import __version__
from meta_lrpinn.cli import Report
from meta_lrpinn.cli.parsing import Groups

SUMMARY = "Versions, devices, shipped initialisations."


def option_groups() -> Groups:
    """None: the command has no options of its own."""
    return {}


def run(options: argparse.Namespace, report: Report) -> None:
    """Prints versions, devices and cards."""
    del options
    import jax

    from meta_lrpinn.learning import checkpoints, networks
    from meta_lrpinn.runtime import machine

    report.say("version", f"meta_lrpinn {__version__}, jax {jax.__version__}")
    devices = [str(device) for device in jax.devices()]
    report.say("devices", ", ".join(devices))
    report.say("runs on", f"networks {devices[0]}, plane waves and differences the host")
    programs = machine.cache_folder()
    report.say("programs", "not kept" if programs is None else f"kept in {programs}")
    cards = {}
    for name in networks.shipped():
        content = json.loads((networks.ASSETS / name / checkpoints.CARD).read_text())
        network, card = content["model"], content["card"]
        parts = [
            f"{network['ndim']}D {network['kind']}",
            f"{network['width']} wide, {network['depth']} layers",
            card["command"],
        ]
        if card["seconds"] is not None:
            parts.append(f"{card['seconds']} s")
        report.say(f"init {name}", "; ".join(filter(None, parts)))
        cards[name] = network
    report.add(
        version=__version__,
        jax=jax.__version__,
        devices=devices,
        programs=None if programs is None else str(programs),
        initialisations=cards,
    )
