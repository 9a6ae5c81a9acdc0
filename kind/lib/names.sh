# shellcheck shell=bash
# shellcheck disable=SC2034 # the other files use these
# Names, versions and directories that the other files share.

KIND_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ROOT_DIR=$(dirname "$KIND_DIR")
BUILD_DIR=$ROOT_DIR/build/kind
BIN_DIR=$ROOT_DIR/build/bin
LOG_DIR=$BUILD_DIR/log

CLUSTER=${KIND_CLUSTER:-holdfast}
KUBECONFIG_FILE=${KIND_KUBECONFIG:-$BUILD_DIR/kubeconfig${KIND_CLUSTER:+-$KIND_CLUSTER}}

# The second network stands for the data centre's own: its subnet is the pool's
# subnet of statefulset.md. Docker hands out addresses from the first /24 only,
# so that no node ever sits in the pools' part of it. Clusters of different
# names share the network, as they would in a data centre.
UNDERLAY_NETWORK=holdfast-underlay
UNDERLAY_SUBNET=10.6.0.0/16
UNDERLAY_GATEWAY=10.6.0.1
UNDERLAY_NODE_RANGE=10.6.0.0/24
UNDERLAY_INTERFACE=ens192

# Every image made here carries this label, so that kind/down finds them.
IMAGE_LABEL=dev.holdfast.kind

# Debian's release for the root file systems. Newer ones have a systemd that
# refuses cgroup v1 (v257), which CI sandboxes still mount.
DEBIAN_RELEASE=bookworm

# pinned MODULE PACKAGE prints the version that kind/modules/MODULE pins.
pinned() {
  (cd "$KIND_DIR/modules/$1" && go list -m -f '{{.Version}}' "$2")
}

kubernetes_version() { pinned kubernetes k8s.io/kubernetes; }
multus_image() { echo "holdfast-multus:$(pinned multus gopkg.in/k8snetworkplumbingwg/multus-cni.v4)"; }

# node_image prints the name of the node image to use: the caller's, or ours,
# named after everything that goes into it, so that a change builds a new one.
node_image() {
  if [[ -n ${KIND_NODE_IMAGE:-} ]]; then
    echo "$KIND_NODE_IMAGE"
    return
  fi
  echo "holdfast-node:$(kubernetes_version)-$(image_inputs | sha256sum | cut -c1-12)"
}

image_inputs() {
  find "$KIND_DIR/modules" "$KIND_DIR/image" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat
  cat "$KIND_DIR"/lib/{binaries,rootfs,workloads,node-image}.sh
  go env GOVERSION GOARCH
}

# take_lock lets one script at a time change the cluster. The lock ends with the
# process; whoever starts a daemon closes $LOCK for it.
take_lock() {
  mkdir -p "$BUILD_DIR"
  exec {LOCK}>"$BUILD_DIR/lock"
  flock --nonblock "$LOCK" || {
    echo '==> Waiting for another kind/up or kind/down to end'
    flock "$LOCK"
  }
}

nodes() {
  docker ps --all --filter "label=io.x-k8s.kind.cluster=$CLUSTER" --format '{{.Names}}' | LC_ALL=C sort
}
