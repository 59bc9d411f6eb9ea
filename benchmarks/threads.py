"""Time training steps by OpenMP's thread wait policy, on a quiet machine and next to one busy loop per usable core.

Spinning threads respond fastest on an idle machine, and take cores away from other work on a busy one.
`alexlab.threads` sets the policy that is best in this table.
"""

from __future__ import annotations

import os
import statistics

from turns import AS_SHIPPED, Apart, Ratio, Times, arguments, environment, machine, take_turns, versions

from step import SCALES, Contender

SHIPPED = "spinning, as torch ships"
WAYS = {
    SHIPPED: AS_SHIPPED,
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (100, 300, 1000, 3000, 10000)},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"},
}


def apart(scale: str, batch: int, variables: dict[str, str]) -> Apart:
    with environment(variables):
        return Apart(Contender, scale, batch, "ours")


def main() -> None:
    parser = arguments(__doc__, 9)
    parser.add_argument("--scale", choices=SCALES, nargs="+", default=list(SCALES))
    parser.add_argument(
        "--ways", choices=WAYS, nargs="+", default=list(WAYS), help="compared with spinning (default: all)"
    )
    args = parser.parse_args()
    print(f"{machine()}\n{versions()}")
    os.environ.pop("OMP_NUM_THREADS", None)
    for scale in args.scale:
        batch = SCALES[scale][1]
        contenders = {way: apart(scale, batch, WAYS[way]) for way in WAYS if way in (SHIPPED, *args.ways)}
        show(f"{scale}, batch {batch}", batch, take_turns(dict(contenders), args.rounds, args.busy))
        for contender in contenders.values():
            contender.end()


def show(title: str, batch: int, times: Times) -> None:
    """Print images a second and speeds over the first way's, quiet; `times` next to busy loops as further columns."""
    like = times.quiet[SHIPPED]
    print(f"\n| {title} | images/s | speed over spinning | half of rounds |", end="")
    print(" busy: images/s | of its quiet speed | over spinning, quiet |" if times.busy else "")
    print(f"|---|--:|--:|---|{'--:|' * (3 if times.busy else 0)}")
    for way, own in times.quiet.items():
        row = f"| {way} | {batch / statistics.median(own):,.4g} | {Ratio.of(like, own)} |"
        if times.busy:
            busy = times.busy[way]
            shares = (f"{Ratio.of(quiet, busy).median:.2f}" for quiet in (own, like))
            row += f" {batch / statistics.median(busy):,.4g} | {' | '.join(shares)} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
