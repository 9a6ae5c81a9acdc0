# shellcheck shell=bash
# Builds every program from the Go modules that kind/modules pins.

# build MODULE TAGS LDFLAGS [PACKAGE] compiles the tools of kind/modules/MODULE,
# or its PACKAGE, into a directory of that name. The go command's cache makes a
# second time cheap.
build() {
  local module=$1 tags=$2 ldflags=$3 package=${4:-tool}
  mkdir -p "$BUILD_DIR/bin/$module"
  (cd "$KIND_DIR/modules/$module" &&
    CGO_ENABLED=${CGO_ENABLED:-0} go build -v -trimpath -tags "$tags" -ldflags "-s -w $ldflags" \
      -o "$BUILD_DIR/bin/$module/" "$package")
}

# Kubernetes knows its version only from the linker; kubeadm and the kubelet
# refuse to work with each other without it.
build_kubernetes() {
  local version minor flags='' package
  version=$(kubernetes_version)
  minor=${version#v*.}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitTreeState=clean"
    flags+=" -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
  done
  build kubernetes '' "$flags"
}

build_node_programs() {
  build containerd no_btrfs,no_devmapper,no_zfs \
    "-X github.com/containerd/containerd/v2/version.Version=$(pinned containerd github.com/containerd/containerd/v2)"
  CGO_ENABLED=1 build runc seccomp ''
  build crictl '' ''
  build cni-plugins '' ''
}

build_etcd() {
  build etcd '' ''
  mv "$BUILD_DIR/bin/etcd/server" "$BUILD_DIR/bin/etcd/etcd"
}

build_workload_programs() {
  build coredns '' '' .
  build multus '' \
    "-X gopkg.in/k8snetworkplumbingwg/multus-cni.v4/pkg/multus.version=$(pinned multus gopkg.in/k8snetworkplumbingwg/multus-cni.v4)"
}

build_operator_tools() {
  build kind '' ''
  build helm '' ''
}

# publish_tools links into build/bin what tests and people call by hand.
publish_tools() {
  mkdir -p "$BIN_DIR"
  local tool
  for tool in kubernetes/kubectl kubernetes/kube-apiserver etcd/etcd kind/kind helm/helm; do
    ln -f "$BUILD_DIR/bin/$tool" "$BIN_DIR/" 2>/dev/null || cp -f "$BUILD_DIR/bin/$tool" "$BIN_DIR/"
  done
}
