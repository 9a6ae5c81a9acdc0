# shellcheck shell=bash
# Root file systems from Debian's packages.

NODE_PACKAGES=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,bash,ca-certificates,curl,jq,procps,iputils-ping,tcpdump
WORKLOAD_PACKAGES=nginx-light,iproute2,iputils-ping,curl,ca-certificates,iptables,nftables,conntrack,kmod,procps

# debian DIRECTORY PACKAGES lays a minimal Debian into DIRECTORY. It counts as
# there only when it is whole: the directory gets its name at the end.
debian() {
  local target=$1 packages=$2 partial=$1.partial
  [[ -d $target ]] && return
  rm -rf "$partial"
  mkdir -p "$BUILD_DIR/debs" "$partial"
  debootstrap --variant=minbase --cache-dir="$BUILD_DIR/debs" --include="$packages" "$DEBIAN_RELEASE" "$partial"
  rm -rf "$partial"/var/cache/apt/* "$partial"/var/lib/apt/lists/* "$partial"/usr/share/{doc,man,locale,info}/*
  mv "$partial" "$target"
}

# rootfs_of PACKAGES names the directory after what is asked for.
rootfs_of() { echo "$BUILD_DIR/rootfs-$DEBIAN_RELEASE-$(sha256sum <<<"$1" | cut -c1-8)"; }

node_rootfs() { debian "$(rootfs_of "$NODE_PACKAGES")" "$NODE_PACKAGES"; }
workload_rootfs() { debian "$(rootfs_of "$WORKLOAD_PACKAGES")" "$WORKLOAD_PACKAGES"; }
