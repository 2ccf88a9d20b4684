# shellcheck shell=bash disable=SC2154,SC2034
# The images that the node itself needs. Pulled where a registry answers; else packed from this distribution's own static
# binaries, so that a machine which never sees a registry runs pods all the same.

provide_images() {
  SANDBOX_IN_USE=$(sandbox_image_in_use)
  provide_image "$SANDBOX_IN_USE" pack_sandbox_image "sandbox image"
  pin_image "$SANDBOX_IN_USE"
  if [ -n "$WITH_DEMO_IMAGE" ]; then provide_image "$DEMO_IMAGE" pack_demo_image "image of the example pods"; fi
}

provide_image() { # NAME PACKER WHAT
  # not "grep -q", which ends at the first match: with pipefail the writer's broken pipe would be the answer
  if is_answering && containers images ls -q | grep -xF "$1" >/dev/null; then
    have "$3: $1"
  elif [ -n "$DRY_RUN" ]; then
    did "pull $1, or pack it from this distribution's binaries"
  elif pull_image "$1"; then
    did "pull $3: $1"
    remember image "$1"
  else
    work_dir
    "$2" "$WORK/image"
    did "pack and import $3: $1"
    containers images import "$WORK/image.tar" >/dev/null
    remember image "$1"
  fi
}

pull_image() {
  if [ -n "$OFFLINE" ] || ! registry_answers "${1%%/*}"; then return 1; fi
  timeout 60 crictl --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" --timeout 60s pull "$1" >/dev/null 2>&1
}

registry_answers() { # HOST: a dead network costs five seconds, not the time a pull takes to give up
  local host=$1
  if [ -n "$(ls -A /etc/containerd/certs.d 2>/dev/null)" ] || ! has_command curl; then return 0; fi # perhaps a mirror does
  if [ "$host" = docker.io ]; then host=registry-1.docker.io; fi
  curl --silent --connect-timeout 5 --max-time 10 --output /dev/null "https://$host/v2/"
}

pin_image() { # image collection by the runtime's clients spares pinned images; containerd pins by itself from 1.7 on
  if [ -z "$DRY_RUN" ]; then containers images label "$1" io.cri-containerd.pinned=pinned >/dev/null; fi
}

pack_sandbox_image() { # BASE: catatonit -P does what pause does: sleep, and reap
  local binary
  binary=$(static_binary catatonit catatonit) ||
    fail "no sandbox image: $SANDBOX_IN_USE can't be pulled and there is no static catatonit here (package catatonit) to make one from"
  mkdir -p "$1"
  install -m 0755 "$binary" "$1/pause"
  pack_image "$1" "$SANDBOX_IN_USE" '["/pause","-P"]' null
}

pack_demo_image() { # BASE
  local binary applet
  binary=$(static_binary busybox busybox-static) ||
    fail "$DEMO_IMAGE can't be pulled and there is no static busybox here (package busybox-static) to make it from"
  mkdir -p "$1"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var}
  chmod 1777 "$1/tmp"
  install -m 0755 "$binary" "$1/bin/busybox"
  for applet in $("$binary" --list); do
    if [ "$applet" != busybox ]; then ln -s busybox "$1/bin/$applet"; fi
  done
  printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$1/etc/passwd"
  printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
  pack_image "$1" "$DEMO_IMAGE" null '["sh"]'
}

is_static() { # ldd fails on what is not dynamic, which is the answer looked for
  case $(ldd "$1" 2>&1 || true) in *'not a dynamic executable'* | *'statically linked'*) ;; *) return 1 ;; esac
}

# A static binary: the installed one, else out of the distribution's package, which on Debian is unpacked and not installed
# (busybox-static would push busybox out).
static_binary() { # COMMAND PACKAGE
  local path
  for path in "$(command -v "$1" || true)" "/usr/libexec/$1/$1" "/usr/libexec/podman/$1" "/usr/lib/podman/$1"; do
    if [ -x "$path" ] && is_static "$path"; then
      printf '%s\n' "$path"
      return
    fi
  done
  if [ -n "$NO_INSTALL" ]; then return 1; fi
  case $PACKAGES in
    apt) unpack_debian_package "$2" ;;
    dnf | yum) install_packages "$1" >&2 ;;
  esac
  for path in "$WORK/packages/$2/bin/$1" "$WORK/packages/$2/usr/bin/$1" "$(command -v "$1" || true)" "/usr/libexec/$1/$1"; do
    if [ -x "$path" ] && is_static "$path"; then
      printf '%s\n' "$path"
      return
    fi
  done
  return 1
}

unpack_debian_package() { # NAME: below WORK/packages/NAME
  local dir=$WORK/packages/$1
  mkdir -p "$dir"
  chmod 0755 "$WORK" "$WORK/packages" "$dir"
  [ -n "$(apt_candidate "$1")" ] || apt-get update -qq >&2 || true
  (cd "$dir" && apt-get download -qq -o APT::Sandbox::User=root "$1" >/dev/null 2>&1 && dpkg-deb -x ./*.deb .) || true
}

# One-layer OCI archive BASE.tar from the tree BASE: the layout that "ctr images import" reads.
pack_image() { # BASE NAME ENTRYPOINT CMD
  local base=$1 name=$2 out=$1.oci layer config manifest
  rm -rf "$out"
  mkdir -p "$out/blobs/sha256"
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$base" -cf "$out/layer" .
  layer=$(keep_blob "$out" "$out/layer")
  printf '%s' "{\"architecture\":\"$ARCH\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"],\"Entrypoint\":$3,\"Cmd\":$4},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"${layer% *}\"]}}" >"$out/config"
  config=$(keep_blob "$out" "$out/config")
  printf '%s' "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":$(descriptor application/vnd.oci.image.config.v1+json "$config"),\"layers\":[$(descriptor application/vnd.oci.image.layer.v1.tar "$layer")]}" >"$out/manifest"
  manifest=$(keep_blob "$out" "$out/manifest")
  printf '%s' "{\"schemaVersion\":2,\"manifests\":[$(descriptor application/vnd.oci.image.manifest.v1+json "$manifest" ",\"platform\":{\"architecture\":\"$ARCH\",\"os\":\"linux\"},\"annotations\":{\"io.containerd.image.name\":\"$name\",\"org.opencontainers.image.ref.name\":\"${name##*:}\"}")]}" >"$out/index.json"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
  tar -C "$out" -cf "$base.tar" oci-layout index.json blobs
  rm -rf "$out" "$base"
}

keep_blob() { # OUT FILE: moves it under its digest, prints "sha256:DIGEST SIZE"
  local digest size
  digest=$(sha_of "$2")
  size=$(stat -c %s "$2")
  mv "$2" "$1/blobs/sha256/$digest"
  printf 'sha256:%s %s\n' "$digest" "$size"
}

descriptor() { # MEDIA-TYPE "DIGEST SIZE" [EXTRA]
  printf '{"mediaType":"%s","digest":"%s","size":%s%s}' "$1" "${2% *}" "${2#* }" "${3:-}"
}
