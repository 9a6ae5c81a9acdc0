#!/bin/sh
# Writes crds/yaml and the deepcopy functions anew from the Go types. They are
# current if git sees no difference afterwards.
set -eu
cd "$(dirname "$0")/.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -C crds/gen -o "$bin/controller-gen" sigs.k8s.io/controller-tools/cmd/controller-gen
rm -f crds/yaml/*.yaml
"$bin/controller-gen" object crd:maxDescLen=1000 \
	paths=./crds/spiderpool/v2beta1 paths=./crds/holdfast/v1alpha1 \
	output:crd:dir=crds/yaml
