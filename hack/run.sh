#!/usr/bin/env bash
# Set this machine up and run the agent in the foreground: joined to the cluster of config/config.yaml or of `edgelet join`,
# or alone with the manifests of config/manifests. Arguments go to `edgelet run`.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

if [ "$(id -u)" != 0 ]; then echo "error: running containers needs root: sudo make run" >&2; exit 2; fi
demo=()
if ! [ -e config/config.yaml ] && ! [ -e /etc/edgelet/kubeconfig ] && [ -z "${KUBECONFIG:-}" ]; then demo=(--demo-image); fi
# The script among the example manifests may run where nobody but this machine's root names pods: without a cluster.
allow=()
case " $* " in
  *" --kubeconfig"* | *" --config"* | *" --scripts-"*) ;;
  *) if [ -n "${demo[*]}" ]; then
       allow=(--scripts-enabled --scripts-namespaces=default --scripts-service-accounts=default)
     fi ;;
esac
scripts/install-containerd.sh "${demo[@]}"
hack/venv.sh run
exec .venv/bin/edgelet run "${allow[@]}" "$@"
