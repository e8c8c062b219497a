#!/usr/bin/env bash
# images.sh REGISTRY [TAG]: builds both images, pushes them, and records their digests in k8s/images.json, which everything that
# names an image reads: cluster profiles, `edm2 render`, `edm2 compile`.
#
# BUILDER   docker, buildah, or the path of a program with the verb `image DOCKERFILE NAME:TAG FOLDER ARG=VALUE…` that builds and
#           pushes to localhost:5000. Default: docker if its daemon answers, else buildah.
# BASE_IMAGE, BUILD_FLAGS, PUSH_FLAGS    passed on to docker or buildah
set -euo pipefail
cd "$(dirname "$0")/.."

registry=${1:?usage: images.sh REGISTRY [TAG]}
tag=${2:-dev}
revision=$(git describe --always --dirty --abbrev=12 2>/dev/null || true)
builder=${BUILDER:-$(docker info >/dev/null 2>&1 && echo docker || echo buildah)}
digest_file=$(mktemp); trap 'rm -f "$digest_file"' EXIT
flags=(--build-arg EDM2_REVISION="$revision" ${BASE_IMAGE:+--build-arg BASE_IMAGE="$BASE_IMAGE"} ${BUILD_FLAGS:-} -f docker/Dockerfile)

publish() {  # publish TARGET IMAGE: builds and pushes; prints the digest
  case $builder in
    docker)
      docker build "${flags[@]}" --target "$1" -t "$2" . >&2
      docker push ${PUSH_FLAGS:-} "$2" >&2
      docker inspect --format '{{join .RepoDigests "\n"}}' "$2" | sed -n "s|^${2%:*}@||p" | head -n 1 ;;
    buildah)
      buildah bud --layers "${flags[@]}" --target "$1" -t "$2" . >&2
      buildah push --digestfile "$digest_file" ${PUSH_FLAGS:-} "$2" >&2
      cat "$digest_file" ;;
    *)
      "$builder" image docker/Dockerfile "edm2-$1:$tag" . TARGET="$1" EDM2_REVISION="$revision" >&2
      curl -sSfI -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$registry/v2/edm2-$1/manifests/$tag" |
        tr -d '\r' | sed -n 's/^[Dd]ocker-[Cc]ontent-[Dd]igest: //p' ;;
  esac
}

lines=()
for target in control compute; do
  image=$registry/edm2-$target
  digest=$(publish "$target" "$image:$tag")
  [[ $digest == sha256:* ]] || { echo "images.sh: no digest came back for $image:$tag" >&2; exit 1; }
  lines+=("  \"edm2-$target\": \"$image@$digest\"" "  \"$image:$tag\": \"$image@$digest\"")
  echo "$image@$digest"
done
printf '{\n%s\n}\n' "$(IFS=$'\n'; echo "${lines[*]}" | sed '$!s/$/,/')" > k8s/images.json
