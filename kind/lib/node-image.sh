# shellcheck shell=bash
# The node image: Debian with systemd, kind's own files, the programs, and in
# containerd's store the images of kind/lib/workloads.sh.

NODE_BASE_IMAGE=holdfast-node-base

kind_files() {
  (cd "$KIND_DIR/modules/kind" &&
    go mod download sigs.k8s.io/kind &&
    go list -m -f '{{.Dir}}/images/base/files' sigs.k8s.io/kind)
}

# node_base_image packs the node's file system without the images.
node_base_image() {
  local root=$BUILD_DIR/node
  rm -rf "$root"
  cp -a "$(rootfs_of "$NODE_PACKAGES")" "$root"
  add_kind_files "$root"
  add_programs "$root"
  enable_units "$root"
  adjust_containerd "$root"
  image_of_files "$NODE_BASE_IMAGE" "$root" 'ENV container=docker' 'STOPSIGNAL SIGRTMIN+3' \
    'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
  rm -rf "$root"
}

add_kind_files() {
  local root=$1 files
  # Files of the module cache are read-only and not executable.
  files=$(kind_files)
  cp -a --no-preserve=mode,ownership "$files/." "$root/"
  chmod 755 "$root"/kind/bin/* "$root"/usr/local/bin/*
  mkdir -p "$root/kind/manifests" "$root/etc/kubernetes/manifests"
  kubernetes_version >"$root/kind/version"
  cp "$KIND_DIR/image/storage-class.yaml" "$root/kind/manifests/default-storage.yaml"
  echo '# There is no default CNI: the cluster is created without one.' >"$root/kind/manifests/default-cni.yaml"
}

add_programs() {
  local root=$1 bin=$BUILD_DIR/bin
  install -m 755 "$bin"/kubernetes/{kubeadm,kubelet,kubectl} "$root/usr/bin/"
  install -m 755 "$bin"/containerd/* "$bin/crictl/crictl" "$root/usr/local/bin/"
  install -m 755 "$bin/runc/runc" "$root/usr/local/sbin/"
  install -d "$root/opt/cni/bin"
  install -m 755 "$bin"/cni-plugins/* "$root/opt/cni/bin/"
}

# enable_units leaves the container with the three services a node needs: what
# Debian enables (getty, udev, timers) is of no use in it, and mounts of
# binfmt_misc would change the host's kernel.
enable_units() {
  local root=$1
  rm -f "$root"/lib/systemd/system/multi-user.target.wants/* \
    "$root"/etc/systemd/system/*.wants/* \
    "$root"/lib/systemd/system/local-fs.target.wants/* \
    "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}* \
    "$root"/lib/systemd/system/basic.target.wants/* \
    "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service
  echo 'ReadKMsg=no' >>"$root/etc/systemd/journald.conf"
  chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
  chroot "$root" systemctl mask systemd-binfmt.service
}

# adjust_containerd takes out what needs CAP_SYS_RESOURCE (see
# kind/narrow-runtime), which costs nothing where it is there, and names
# the sandbox image that this Kubernetes version's kubeadm uses.
adjust_containerd() {
  local root=$1 pause
  pause=$(component_image_names | grep /pause:)
  sed -i -E '/^(OOMScoreAdjust|Limit[A-Z]+|TasksMax)=/d' "$root/etc/systemd/system/containerd.service"
  sed -i -E -e "s|sandbox_image = .*|sandbox_image = \"$pause\"|" \
    -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
  chroot "$root" ctr oci spec | jq '
      .hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}]
      | del(.process.rlimits)
      | .process.capabilities |= map_values(map(select(. != "CAP_SYS_RESOURCE")))' \
    >"$root/etc/containerd/cri-base.json"
}

# fill_node_image puts the pods' images into the store of a node's containerd.
# Layers stay packed (--no-unpack): each node unpacks what it runs.
fill_node_image() {
  local image=$1 container=holdfast-node-build-$$
  docker run --detach --name "$container" --privileged --entrypoint sleep "$NODE_BASE_IMAGE" infinity
  docker exec --detach "$container" containerd
  docker exec "$container" timeout 60 sh -c 'until ctr version >/dev/null 2>&1; do sleep 0.2; done'
  # shellcheck disable=SC2046 # names of images have no spaces
  docker save $(images_for_pods) |
    docker exec --interactive --privileged "$container" \
      ctr --namespace k8s.io images import --all-platforms --no-unpack --digests -
  docker exec "$container" ctr --namespace k8s.io images list --quiet
  docker exec "$container" pkill --exact containerd
  docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change 'CMD []' "$container" "$image"
  docker rm --force --volumes "$container"
}

# remove_older_node_images IMAGE leaves IMAGE and what containers still use.
remove_older_node_images() {
  docker images --format '{{.Repository}}:{{.Tag}}' holdfast-node | { grep -vxF "$1" || true; } |
    xargs --no-run-if-empty docker rmi || true
  docker image prune --force --filter "label=$IMAGE_LABEL"
}
