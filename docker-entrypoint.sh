#!/bin/sh
# The first word names a command, a file of src/; without one the line is train.py's:
#   alexlab prepare data=cifar10
#   alexlab -m seed=0,1
src=$(dirname "$0")/src
command=train
if [ -f "$src/$1.py" ]; then
    command=$1
    shift
fi
exec python3 "$src/$command.py" "$@"
