# shellcheck shell=bash
# The checks of tools/verify. Each prints what is wrong and nothing else.

go_files() { git ls-files --cached --others --exclude-standard -- '*.go' | while read -r f; do [[ ! -f $f ]] || echo "$f"; done; }

check_gofmt() {
  go_files | xargs --no-run-if-empty gofmt -s -l | sed 's/$/: run gofmt -s -w on it/'
}

check_vet() { go vet ./...; }

# The scenarios on a cluster are behind a build tag, which vet must be told.
check_vet_e2e() { go vet -tags e2e ./e2e/...; }

check_vet_tools() { go -C tools vet ./... && go -C bench/plot vet ./...; }

check_staticcheck() {
  "$BIN/staticcheck" -tags e2e ./... && (cd tools && "$BIN/staticcheck" ./...) && (cd bench/plot && "$BIN/staticcheck" ./...)
}

check_tidy() { go mod tidy -diff && go -C tools mod tidy -diff && go -C bench/plot mod tidy -diff; }

# forbid PACKAGES REGEXP WHY: none of the packages depends on one that matches.
forbid() {
  local packages=$1 forbidden=$2 why=$3 package found deps
  for package in $(go list "$packages"); do
    deps=$(go list -deps "$package") || return
    found=$(grep -E "$forbidden" <<<"$deps" | tr '\n' ' ')
    [[ -z $found ]] || echo "$package depends on $found: $why"
  done
}

# The tree of imports (CONTRIBUTING.md).
check_imports() {
  local kubernetes='^(k8s\.io|sigs\.k8s\.io)/'
  forbid ./cni/... "$kubernetes|^$MODULE/(lease|crds|agent)(/|$)" 'the plugins start for every pod, and know only the socket'
  forbid ./cmd/holdfast-cni "$kubernetes|^$MODULE/(lease|crds|agent)(/|$)" 'the plugins start for every pod, and know only the socket'
  forbid ./lease/... "$kubernetes|^$MODULE/(cni|crds|agent)(/|$)" 'the protocol knows no Kubernetes'
  forbid ./crds/... "^$MODULE/(cni|lease|agent)(/|$)" 'the API types know nothing of who uses them'
  forbid ./agent/... "^$MODULE/(cmd|e2e)(/|$)" 'cmd starts the agent, and e2e looks at it from outside'
}

# What lease, the core, may not do by itself: reading a clock, writing a log or
# touching anything outside of memory belongs to who calls it.
check_purity() {
  local package=$MODULE/lease impure file
  impure=$(go list -f '{{join .Imports "\n"}}' "$package" | grep -xE 'os|os/.*|net|net/http|log|log/.*|syscall|io/fs|math/rand.*' | tr '\n' ' ')
  [[ -z $impure ]] || echo "$package imports $impure"
  for file in $(go list -f '{{range .GoFiles}}{{$.Dir}}/{{.}} {{end}}' "$package"); do
    grep -HnE '\btime\.(Now|Since|Until|Sleep|After|AfterFunc|Tick|NewTimer|NewTicker)\(' "$file"
  done
  return 0
}

# generated_files lists what `make generate` writes.
generated_files() {
  git ls-files --cached --others --exclude-standard -- crds/yaml charts/holdfast/crds '*zz_generated*'
}

# Generates in a copy of the tree, so that the tree itself is only looked at.
check_generated() {
  local copy status=0
  copy=$(mktemp -d)
  git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - --ignore-failed-read 2>/dev/null | tar --extract --directory "$copy"
  git -C "$copy" init --quiet
  if make --no-print-directory -C "$copy" generate >"$copy/generate.log" 2>&1; then
    compare_generated "$copy"
  else
    cat "$copy/generate.log"
    status=1
  fi
  rm -rf "$copy"
  return $status
}

compare_generated() {
  local copy=$1 file
  { generated_files && (cd "$copy" && generated_files); } | LC_ALL=C sort -u | while read -r file; do
    cmp -s "$file" "$copy/$file" || echo "$file is not what \`make generate\` writes: run it and commit the result"
  done
}

# The Kubernetes version only stands for "new enough": no cluster is asked.
render() { "$BIN/helm" template holdfast charts/holdfast --namespace kube-system --kube-version 1.37.0 "$@"; }

pool_v4=(--set 'clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.6.0.0/16,clusterDefaultPool.ipv4Gateway=10.6.0.1'
  --set 'clusterDefaultPool.ipv4IPRanges={10.6.168.1-10.6.168.100}')
pool_v6=(--set 'clusterDefaultPool.installIPv6IPPool=true,clusterDefaultPool.ipv6Subnet=fd00:10:6::/64,clusterDefaultPool.ipv6Gateway=fd00:10:6::1'
  --set 'clusterDefaultPool.ipv6IPRanges={fd00:10:6::100-fd00:10:6::1ff}')

# expect WHAT REGEXP WANTED ARGUMENT...: how often the rendered chart matches.
expect() {
  local what=$1 pattern=$2 wanted=$3 rendered got
  shift 3
  rendered=$(render "$@" 2>&1) || {
    printf '%s: %s\n' "$what" "$rendered"
    return
  }
  got=$(grep -cE -- "$pattern" <<<"$rendered")
  [[ $got == "$wanted" ]] || echo "$what: $got lines match $pattern, want $wanted (helm template $*)"
}

check_chart() {
  local linted
  linted=$("$BIN/helm" lint --strict charts/holdfast) || echo "$linted"
  expect 'as it comes' '^kind: DaemonSet' 2
  expect 'Multus finds its default network itself' '--multus-autoconfig-dir=/etc/cni/net.d' 1
  expect 'without Multus' '^kind: DaemonSet' 1 --set multus.multusCNI.install=false
  expect 'without Multus and its objects' 'k8s.cni.cncf.io' 0 --set multus.multusCNI.install=false,multus.enableMultusConfig=false
  expect 'alone' '--conf=/etc/holdfast/cni.conflist' 1 --set cni.install=true,multus.multusCNI.install=false "${pool_v4[@]}"
  expect 'under Multus, the node gets no second configuration' '--conf=' 0 --set cni.install=true "${pool_v4[@]}"
  expect 'under Multus, the list is its default network' 'default-network.conflist: \|' 1 --set cni.install=true "${pool_v4[@]}"
  expect 'macvlan' '"master": "ens192"' 1 --set cni.install=true,cni.type=macvlan,cni.master=ens192
  expect 'macvlan with the coordinator' '"type": "coordinator"' 1 --set cni.install=true,cni.type=macvlan,cni.master=ens192
  expect 'macvlan without it' '"type": "coordinator"' 0 --set cni.install=true,cni.type=macvlan,cni.master=ens192,cni.coordinator=false
  expect 'ptp needs no coordinator' '"type": "coordinator"' 0 --set cni.install=true "${pool_v4[@]}"
  expect 'the coordinator asks on the same socket' '"ipam_unix_socket_path": "/run/x.sock"' 2 --set cni.install=true,cni.type=macvlan,cni.master=ens192,global.ipamUNIXSocketHostPath=/run/x.sock
  expect 'more plugins' '"type": "portmap"' 1 --set cni.install=true,cni.extraPlugins[0].type=portmap
  expect 'a network of an own name' '"clusterNetwork": "underlay"' 1 --set multus.multusCNI.defaultCniCRName=underlay
  expect 'the agents know it' 'clusterNetwork: "kube-system/underlay"' 1 --set multus.multusCNI.defaultCniCRName=underlay
  expect 'two default pools' '^kind: SpiderIPPool' 2 "${pool_v4[@]}" "${pool_v6[@]}"
  expect 'another socket' '"ipam_unix_socket_path": "/run/x.sock"' 1 --set cni.install=true,multus.multusCNI.install=false,global.ipamUNIXSocketHostPath=/run/x.sock
  expect 'a SpiderCoordinator' '^kind: SpiderCoordinator' 1
  expect 'no SpiderCoordinator' '^kind: SpiderCoordinator' 0 --set coordinator.enabled=false
  expect 'values from before there was a SpiderCoordinator' '^  (mode: auto|podCIDRType: auto|tunePodRoutes: true|  - 169.254.0.0/16|vethMTU: 1500)' 5 --set coordinator=null
  expect 'what the coordinator is told' '^  (mode: overlay|vethLinkAddress: "169.254.100.1"|  - fd00::/8|  - dst: 10.7.0.0/16)' 4 --set coordinator.mode=overlay,coordinator.vethLinkAddress=169.254.100.1,coordinator.hijackCIDR[0]=fd00::/8,coordinator.policyRoutes[0].dst=10.7.0.0/16,coordinator.policyRoutes[0].gw=10.6.0.2
  expect "Cilium's ConfigMap elsewhere" 'ciliumConfigMap: cilium/conf|kube-flannel-cfg, conf' 2 --set global.ciliumConfigMap=cilium/conf
  expect 'StatefulSets as stateless' 'enableStatefulSet: false' 1 --set ipam.enableStatefulSet=false
  expect 'IP conflict detection' 'enableIPConflictDetection: true' 1 --set ipam.enableIPConflictDetection=true
  expect 'gateway detection' 'enableGatewayDetection: true' 1 --set ipam.enableGatewayDetection=true
  expect 'a webhook' '--webhook-address=:5722' 1
  expect 'a webhook that can fail' 'failurePolicy: Ignore' 5
  expect 'an upgrade leaves the certificate alone' 'caBundle:|tls.crt' 0
  expect 'no webhook' 'webhook' 0 --set spiderpoolAgent.webhookPort=0
  expect 'what Spiderpool has and this has not, switched off' '^kind: DaemonSet' 2 --set ipam.spiderSubnet.enable=false,ipam.spiderSubnet.autoPool.enable=false,plugins.installCNI=false,sriov.install=false,rdma.rdmaSharedDevicePlugin.install=false,grafanaDashboard.install=false,spiderpoolAgent.prometheus.enabled=false,multus.multusCNI.uninstall=false
  expect 'nothing is privileged' 'privileged: true' 0
  expect 'every container drops all capabilities' 'drop: \[ALL\]' 3
}

# refuse MESSAGE ARGUMENT...: the chart says no, with these words.
refuse() {
  local message=$1 said
  shift
  if said=$(render "$@" 2>&1); then
    echo "helm template $*: it was accepted, want: $message"
  elif [[ $said != *"$message"* ]]; then
    printf 'helm template %s: want %s, got:\n%s\n' "$*" "$message" "$said"
  fi
}

check_chart_refusals() {
  refuse "additional properties 'instal' not allowed" --set cni.instal=true
  refuse 'cni.type=macvlan needs cni.master' --set cni.install=true,cni.type=macvlan
  refuse 'set clusterDefaultPool.ipv4Gateway' --set cni.install=true "${pool_v4[@]}" --set clusterDefaultPool.ipv4Gateway=
  refuse 'needs clusterDefaultPool.ipv4Subnet' --set clusterDefaultPool.installIPv4IPPool=true
  refuse 'needs clusterDefaultPool.ipv6Subnet' --set clusterDefaultPool.installIPv6IPPool=true
  refuse 'no pod would get an address of that pool' --set clusterDefaultPool.installIPv6IPPool=true,clusterDefaultPool.ipv6Subnet=fd00::/64,ipam.enableIPv6=false
  refuse 'no pod could get an address' --set ipam.enableIPv4=false,ipam.enableIPv6=false
  refuse 'would be lost for good' --set ipam.gc.enabled=false
  refuse 'taint it with node.kubernetes.io/out-of-service' --set ipam.gc.statelessPod.zombieOnNotReadyNode=true
  refuse 'before its status tells so' --set ipam.gc.statelessPod.enableGcRunningPodOnEmptyPodStatusIPs=true
  refuse "at '/ipam/gc/gcAll/intervalInSecond'" --set ipam.gc.gcAll.intervalInSecond=0
  refuse "at '/ipam/gc/gcDeletingTimeOutPodDelay'" --set ipam.gc.gcDeletingTimeOutPodDelay=-1
  refuse "at '/ipam/statefulSetPoolChange'" --set ipam.statefulSetPoolChange=forget
  refuse 'Set ipam.enableGatewayDetection=true instead' --set coordinator.detectGateway=true
  refuse 'Set ipam.enableIPConflictDetection=true instead' --set coordinator.detectIPConflict=true
  refuse "at '/coordinator/mode'" --set coordinator.mode=disable
  refuse "at '/coordinator/hijackCIDR/0'" --set coordinator.hijackCIDR[0]=all
  refuse "at '/coordinator/policyRoutes/0'" --set coordinator.policyRoutes[0].dst=10.7.0.0/16
  refuse "at '/coordinator/vethMTU'" --set coordinator.vethMTU=0
  refuse "at '/global/ciliumConfigMap'" --set global.ciliumConfigMap=cilium-config
  refuse 'ipam.spiderSubnet.enable=true: there are no SpiderSubnets here. Create SpiderIPPools' --set ipam.spiderSubnet.enable=true
  refuse 'plugins.installRdmaCNI=true: the chart installs only its own plugins' --set plugins.installCNI=false,plugins.installRdmaCNI=true
  refuse 'sriov.install=true: install the SR-IOV network operator by itself' --set sriov.install=true,sriov.image.tag=v1
  refuse 'spiderpoolController=...: there is no controller here' --set spiderpoolController.replicas=2
  refuse 'Set image.repository instead' --set global.imageRegistryOverride=registry.example
  refuse "at '/ipam/coolDown'" --set ipam.coolDown=soon
  refuse "at '/ipam/conflictRest'" --set ipam.conflictRest=soon
}

check_shellcheck() {
  command -v shellcheck >/dev/null || {
    echo 'skip: shellcheck is not installed: apt-get install shellcheck'
    return
  }
  git ls-files --cached --others --exclude-standard | while read -r f; do
    if [[ -f $f ]] && head -n 1 "$f" | grep -qE '^#!.*\b(ba|da)?sh\b|^# shellcheck shell='; then echo "$f"; fi
  done | xargs --no-run-if-empty shellcheck --external-sources --severity warning
}
