#!/bin/sh
# Starts a Python worker as the pool asks for it: --container_executable of Beam's worker pool.
#
# Beam's own command leaves out WORKER_ID, without which Prism refuses requests for side inputs. And
# the pool knows workers by ids that are unique for one machine of an engine only: where two share a
# pool, it would stop the one's worker for the other. So a worker has a session of its own here, and
# ends by itself when its engine hangs up.
for argument; do
  case $argument in
    --id=*) WORKER_ID=${argument#*=} ;;
    --control_endpoint=*) control=${argument#*=} ;;
  esac
done
export WORKER_ID
setsid "$TOKENMILL_WORKER_PYTHON" -c "
import sys
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(sys.argv[1], worker_id=sys.argv[2]).run()" "$control" "$WORKER_ID" &
wait
