# shellcheck shell=bash
# The images that pods run, all made here: Kubernetes' own components under the
# names kubeadm asks for, Multus, and nginx.

# image_of_files NAME DIRECTORY INSTRUCTION... makes an image whose whole file
# system is DIRECTORY, with the given Dockerfile instructions.
image_of_files() {
  local name=$1 directory=$2 layer
  shift 2
  layer=$(tar -C "$directory" --numeric-owner -c . | docker import -)
  image_from "$layer" "$name" "$(mktemp -d "$BUILD_DIR/image.XXXXXX")" "$@"
}

# image_from BASE NAME CONTEXT INSTRUCTION... builds NAME on BASE and removes the
# CONTEXT directory. The classic builder: Debian's docker has no other.
image_from() {
  local base=$1 name=$2 context=$3
  shift 3
  printf '%s\n' "FROM $base" "LABEL $IMAGE_LABEL=true" "$@" >"$context/Dockerfile"
  DOCKER_BUILDKIT=0 docker build --tag "$name" "$context"
  rm -rf "$context"
}

# image_of_program NAME PATH BINARY: one static program at PATH, nothing else.
image_of_program() {
  local name=$1 path=$2 binary=$3 directory
  directory=$(mktemp -d "$BUILD_DIR/image.XXXXXX")
  chmod 755 "$directory"
  install -D -m 755 "$binary" "$directory$path"
  image_of_files "$name" "$directory" "ENTRYPOINT [\"$path\"]" 'ENV PATH=/usr/local/bin:/usr/bin:/bin'
  rm -rf "$directory"
}

component_image_names() {
  "$BUILD_DIR/bin/kubernetes/kubeadm" config images list --kubernetes-version "$(kubernetes_version)"
}

# Every control-plane manifest of kubeadm calls its program by name, through
# PATH, but for CoreDNS, which is the image's entrypoint, and kube-proxy, which
# is called by its path and runs iptables.
component_images() {
  local name
  for name in $(component_image_names); do
    case ${name##*/} in
      kube-proxy:*) kube_proxy_image "$name" ;;
      kube-*) image_of_program "$name" /usr/local/bin/"$(program_in "$name")" "$BUILD_DIR/bin/kubernetes/$(program_in "$name")" ;;
      etcd:*) image_of_program "$name" /usr/local/bin/etcd "$BUILD_DIR/bin/etcd/etcd" ;;
      coredns:*) image_of_program "$name" /coredns "$BUILD_DIR/bin/coredns/coredns" ;;
      pause:*) pause_image "$name" ;;
      *) die "kubeadm asks for $name, and kind/lib/workloads.sh does not know how to make it" ;;
    esac
  done
}

# program_in prints the last part of an image's name, without its tag.
program_in() {
  local name=${1##*/}
  echo "${name%%:*}"
}

pause_image() {
  gcc -static -Os -s -o "$BUILD_DIR/bin/pause" "$KIND_DIR/image/pause.c"
  image_of_program "$1" /pause "$BUILD_DIR/bin/pause"
}

# The Debian userland is one layer that kube-proxy and nginx share.
userland_image() {
  image_of_files holdfast-userland "$(rootfs_of "$WORKLOAD_PACKAGES")"
}

kube_proxy_image() {
  local context
  context=$(mktemp -d "$BUILD_DIR/image.XXXXXX")
  cp "$BUILD_DIR/bin/kubernetes/kube-proxy" "$context/"
  image_from holdfast-userland "$1" "$context" 'COPY kube-proxy /usr/local/bin/kube-proxy'
}

nginx_image() {
  image_from holdfast-userland nginx:latest "$(mktemp -d "$BUILD_DIR/image.XXXXXX")" \
    'STOPSIGNAL SIGQUIT' 'CMD ["nginx", "-g", "daemon off; error_log stderr;"]'
}

# The paths inside are those of Multus' own image, so that one chart can
# install from either.
multus_workload_image() {
  local directory programs=$BUILD_DIR/bin/multus
  directory=$(mktemp -d "$BUILD_DIR/image.XXXXXX")
  chmod 755 "$directory"
  install -D -m 755 "$programs/multus" "$directory/usr/src/multus-cni/bin/multus"
  install -m 755 "$programs/install_multus" "$programs/thin_entrypoint" "$programs/kubeconfig_generator" "$directory/"
  image_of_files "$(multus_image)" "$directory" 'ENTRYPOINT ["/thin_entrypoint"]'
  rm -rf "$directory"
}

workload_images() {
  userland_image
  component_images
  nginx_image
  multus_workload_image
}

# images_for_pods lists what workload_images made.
images_for_pods() {
  component_image_names
  echo nginx:latest
  multus_image
}
