# What TEU needs from the system's packages, and how to get it. Sourced by quickstart and test.
# shellcheck shell=bash

# To build: libseccomp is linked. To run: nft writes the firewall table, btrfs makes the embedded pool of volumes.
BUILD_PACKAGES=(gcc libc6-dev pkg-config libseccomp-dev)
RUN_PACKAGES=(nftables iproute2 busybox-static btrfs-progs mount curl ca-certificates)
# To test: a real engine and a registry-less image source, nginx to run, real peers, tools to look.
TEST_PACKAGES=(docker.io nginx-light openssh-server openssh-client python3-venv python3-pip strace psmisc procps git tmux sqlite3)
# ZFS without a kernel that has it, for the path through the commands. Debian lets one package have `zfs`, and a developer's own stays.
command -v zfs >/dev/null || TEST_PACKAGES+=(zfs-fuse)
BENCH_PACKAGES=(hyperfine iperf3)
# To test in a machine of our own making (deploy/vm).
VM_PACKAGES=(qemu-system-x86 mmdebstrap e2fsprogs debian-archive-keyring)

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "run this as root (sudo $0 $*): containers need namespaces, a bridge and a firewall table"; }

# Installs what is missing of the named Debian or Ubuntu packages.
install_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  command -v apt-get >/dev/null || die "install these packages first (this script only knows apt): ${missing[*]}"
  say "installing ${missing[*]}"
  # A package's own service must not start: nginx and docker would take ports and change the network.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=1; fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { [ -n "$made" ] && rm -f $policy; die "apt-get could not install: ${missing[*]}"; }
  [ -n "$made" ] && rm -f $policy
  return 0
}

# Finds cargo, or says how to get it.
need_cargo() {
  command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH
  command -v cargo >/dev/null || die "Rust's toolchain is missing: install it with rustup (https://rustup.rs), version 1.95 or newer, then run this again"
}
