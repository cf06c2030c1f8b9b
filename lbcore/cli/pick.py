"""`lbcore pick`: which endpoint gets a request, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from lbcore.cli.logs import quiet_grpc
from lbcore.cli.options import Commands, add_json, add_server, count, credentials_of, criterion
from lbcore.cli.output import endpoint_json
from lbcore.errors import InvalidSetting

if TYPE_CHECKING:
    from lbcore.explanation import Explanation
    from lbcore.model import Endpoint

__all__ = ["add_pick"]


def add_pick(commands: Commands) -> None:
    pick = commands.add_parser("pick", help="pick an endpoint of a service", description=_pick.__doc__)
    pick.add_argument("service", metavar="SERVICE")
    pick.add_argument("--key", metavar="K", help="what policies that hash shall hash")
    pick.add_argument(
        "-n",
        metavar="N",
        dest="count",
        type=count,
        default=1,
        help="with --key the first N endpoints in the key's order of fallback; without, N picks one after another",
    )
    pick.add_argument("--explain", action="store_true", help="show why, stage by stage; the next pick gives the winner")
    pick.add_argument(
        "--subset",
        metavar="KEY=VALUE",
        action="append",
        type=criterion,
        help="only endpoints with these metadata; may be repeated. A value is JSON where it can be, else text",
    )
    pick.add_argument("--exclude", metavar="ADDRESS", action="append", default=[], help="not this one; may be repeated")
    pick.add_argument("--local-locality", metavar="REGION/ZONE", help="where the request comes from")
    pick.set_defaults(run=_pick)
    add_server(pick)
    add_json(pick)


def _pick(arguments: argparse.Namespace) -> int:
    """Asks the picker service which endpoint gets a request, and prints its address."""
    quiet_grpc()
    from lbcore.client import PickerClient

    service, key, count = arguments.service, arguments.key, arguments.count
    subset = None if arguments.subset is None else dict(arguments.subset)
    place = arguments.local_locality
    if arguments.explain and (count > 1 or arguments.exclude):
        raise InvalidSetting("--explain: expected without -n and --exclude, because it explains a single first pick")
    with PickerClient(arguments.server, credentials=credentials_of(arguments)) as client:
        if arguments.explain:
            _show_explanation(client.explain(service, key, subset=subset, local_locality=place), arguments)
            return 0
        endpoints: Iterable[Endpoint]
        if key is not None or count == 1 or arguments.exclude:
            exclude = arguments.exclude
            endpoints = client.rank(service, key, count, exclude=exclude, subset=subset, local_locality=place)
        else:
            endpoints = client.pick_many(service, count, subset=subset, local_locality=place)
        if arguments.json:
            print(json.dumps({"service": arguments.service, "endpoints": [endpoint_json(each) for each in endpoints]}))
        else:
            for each in endpoints:
                print(each.address)
    return 0


def _show_explanation(explanation: Explanation, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({"service": arguments.service, **_explanation_json(explanation)}))
    else:
        print(explanation)


def _explanation_json(explanation: Explanation) -> dict[str, object]:
    shares = explanation.locality_shares
    return {
        "cluster": explanation.cluster,
        "policy": explanation.policy,
        "hash": explanation.hash,
        "priorities": [asdict(level) for level in explanation.priorities],
        "percent": explanation.percent,
        "priority": explanation.priority,
        "degraded": explanation.degraded,
        "locality_shares": None if shares is None else {str(place): share for place, share in shares.items()},
        "candidates": [
            {"address": each.endpoint.address, "weight": each.weight, "active": each.active}
            for each in explanation.candidates
        ],
        "probes": [each.address for each in explanation.probes],
        "winner": None if explanation.winner is None else endpoint_json(explanation.winner),
        "reason": explanation.reason,
    }
