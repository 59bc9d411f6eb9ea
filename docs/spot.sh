#!/usr/bin/env bash
# Run a command on an EC2 spot machine. At the interruption notice, about two minutes before the machine is taken away,
# the command gets SIGTERM: alexlab then saves its runs and ends with status 75, and the same command resumes them.
#
#   docs/spot.sh alexlab train -m recipe=imagenet128 ablation=none,no_lrn seed=0,1,2
#
# docs/how-to/stop-and-resume.md#spot-machines has the rest. SPOT_METADATA replaces the address of EC2's metadata.
set -u
[ $# -gt 0 ] || { echo "usage: docs/spot.sh COMMAND [ARGUMENT ...]" >&2; exit 2; }
command -v curl > /dev/null || { echo "error: docs/spot.sh: needs curl" >&2; exit 2; }
metadata=${SPOT_METADATA:-http://169.254.169.254/latest}

is_announced() { # 404 until there is a notice
    local token
    token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token") &&
        curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action"
}

while kill -0 $$; do # this process, which becomes the command
    if is_announced; then
        kill -TERM $$
        break # a second signal would end it without saving
    fi
    sleep 5
done < /dev/null > /dev/null 2>&1 &
exec "$@"
