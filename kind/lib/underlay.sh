# shellcheck shell=bash
# The second network of every node: 10.6.0.0/16 on an interface named ens192.

ensure_underlay() {
  create_underlay_network
  local node
  for node in $(nodes); do
    connect_node "$node"
  done
}

# The network is internal: docker then gives nodes no default route over it, so
# a node's own traffic stays on eth0 whatever the networks are called.
create_underlay_network() {
  docker network inspect "$UNDERLAY_NETWORK" >/dev/null 2>&1 && return
  docker network create --internal --subnet "$UNDERLAY_SUBNET" --gateway "$UNDERLAY_GATEWAY" \
    --ip-range "$UNDERLAY_NODE_RANGE" "$UNDERLAY_NETWORK"
}

# connect_node NODE makes sure that NODE has the interface, under its name. The
# interface of a node that was started anew has docker's name.
connect_node() {
  local node=$1 address interface
  address=$(underlay_address "$node")
  if [[ -z $address ]]; then
    docker network connect "$UNDERLAY_NETWORK" "$node"
    address=$(underlay_address "$node")
  fi
  interface=$(interface_with "$node" "$address")
  [[ $interface == "$UNDERLAY_INTERFACE" ]] && return
  docker exec "$node" sh -euc "
    ip link set $interface down
    ip link set $interface name $UNDERLAY_INTERFACE
    ip link set $UNDERLAY_INTERFACE up"
}

underlay_address() {
  docker inspect --format "{{with index .NetworkSettings.Networks \"$UNDERLAY_NETWORK\"}}{{.IPAddress}}{{end}}" "$1"
}

interface_with() {
  docker exec "$1" ip -json address show |
    jq -er --arg address "$2" '.[] | select(any(.addr_info[]; .local == $address)) | .ifname'
}

# A stopped node leaves the network before it starts again: kind's entrypoint
# looks up the node's own name to find its address, and with two networks it
# may find the wrong one.
disconnect_node() {
  docker network disconnect --force "$UNDERLAY_NETWORK" "$1" 2>/dev/null || true
}

remove_underlay_network() {
  docker network rm "$UNDERLAY_NETWORK" >/dev/null 2>&1 || true
}
