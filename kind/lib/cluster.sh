# shellcheck shell=bash
# The cluster's life: created, started again, reused, deleted.

kind_program() { "$BIN_DIR/kind" "$@"; }
kubectl_program() { "$BIN_DIR/kubectl" --kubeconfig "$KUBECONFIG_FILE" "$@"; }

# cluster_is_usable: kind leaves no mark on a finished cluster, so a file of
# ours does, with the nodes' names.
cluster_is_usable() {
  [[ -n $(nodes) && $(sed 1d "$(finished_mark)" 2>/dev/null) == "$(nodes)" ]]
}

reuse_cluster() {
  echo "==> Reusing the cluster $CLUSTER"
  if [[ $(head -n 1 "$(finished_mark)") != "$(node_image)" ]]; then
    say 'Its node image is not the one of this source tree: kind/down, then kind/up renews it.'
  fi
  if [[ -n $(stopped_nodes) ]] && ! restart_nodes; then
    say 'They do not start again; a new cluster takes their place.'
    ensure_images
    renew_cluster
    return
  fi
  finish_cluster
}

restart_nodes() {
  echo '==> Starting the stopped nodes (usually 10 s)'
  start_nodes >"$LOG_DIR/start_nodes.log" 2>&1 </dev/null
}

renew_cluster() {
  if [[ -n $(nodes) ]]; then
    step '10 s' "Deleting what is left of another cluster $CLUSTER" delete_cluster
  fi
  step '60 s' "Creating the cluster $CLUSTER: one control plane, two workers" create_cluster
  finish_cluster
}

finish_cluster() {
  step '2 s' "Putting $UNDERLAY_SUBNET on $UNDERLAY_INTERFACE of every node" ensure_underlay
  step '5 s' 'Waiting for the API server' await_api
  step '1 s, 20 s after a restart' 'Waiting for nodes that have a network' await_nodes
}

finished_mark() { echo "$BUILD_DIR/cluster-$CLUSTER"; }

create_cluster() {
  rm -f "$(finished_mark)"
  kind_program create cluster --name "$CLUSTER" --image "$(node_image)" --config "$KIND_DIR/cluster.yaml" \
    --kubeconfig "$KUBECONFIG_FILE" --retain --verbosity 1
  local node
  for node in $(nodes); do
    # A daemon that starts would start the nodes by itself, with both networks
    # connected (see disconnect_node).
    docker update --restart no "$node"
    install_cni_plugins "$node"
  done
  { node_image && nodes; } >"$(finished_mark)"
}

# install_cni_plugins brings a stock node image, which has only what kind's own
# CNI needs, to what ours has.
install_cni_plugins() {
  local plugin
  for plugin in "$BUILD_DIR"/bin/cni-plugins/*; do
    docker exec "$1" test -x "/opt/cni/bin/${plugin##*/}" || docker cp "$plugin" "$1:/opt/cni/bin/"
  done
}

stopped_nodes() {
  docker ps --all --filter "label=io.x-k8s.kind.cluster=$CLUSTER" --filter status=exited --filter status=created \
    --format '{{.Names}}' | LC_ALL=C sort
}

# start_nodes reports failure by its status: a daemon that was killed at a bad
# moment can keep containers that neither run nor start.
start_nodes() {
  local node
  for node in $(stopped_nodes); do
    disconnect_node "$node"
    docker start "$node" || return
  done
  kind_program export kubeconfig --name "$CLUSTER" --kubeconfig "$KUBECONFIG_FILE"
}

await_api() {
  { set +x; } 2>/dev/null
  local deadline=$((SECONDS + 180))
  until kubectl_program get --raw /readyz >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "the API server is not ready after 180 s; look at: docker exec $CLUSTER-control-plane crictl ps -a"
    sleep 0.5
  done
  kubectl_program get nodes -o wide
}

# await_nodes waits for the nodes that can become Ready: those with a CNI
# configuration. One that does not is no reason to fail: what is wrong with its
# network may be what the caller is about to mend.
await_nodes() {
  local node
  for node in $(nodes); do
    docker exec "$node" sh -c 'ls /etc/cni/net.d/*.conf*' || continue
    kubectl_program wait --for=condition=Ready "node/$node" --timeout=60s || true
  done
}

# delete_cluster works without the kind program too, which another clone of
# this repository, the one that made the cluster, may have taken along.
delete_cluster() {
  rm -f "$(finished_mark)"
  if [[ -x $BIN_DIR/kind ]]; then
    kind_program delete cluster --name "$CLUSTER" --kubeconfig "$KUBECONFIG_FILE"
  else
    nodes | xargs docker rm --force --volumes
  fi
  remove_underlay_network
}
