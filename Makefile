# `make help` lists what there is. Everything that is built lands in build/.
# Each recipe is one shell script that ends at its first failure.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test verify unit e2e fuzz mutants crash kind-up kind-down generate build image load clean

# The version that programs print: the last tag and what came after it.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
IMAGE ?= holdfast:dev
BUILD := $(CURDIR)/build
BIN := $(BUILD)/bin
RESULTS := $(BUILD)/test
GOFLAGS_STATIC := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
export KUBECONFIG := $(BUILD)/kind/kubeconfig
# The version comes from above, and git may refuse another user's checkout.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: kind-up image load ## a StatefulSet keeps its addresses on a real cluster, from nothing (first time 15 min)
	@go run ./e2e/demo

demo-down: ## remove the cluster, its images and the docker daemon if the demo started it
	@kind/down --all

# The parts of `make test`, in the order from cheap to dear, and what of them
# leaves results. One that fails keeps no other from its turn.
PARTS := verify kind-up unit sim model mutants crash counts e2e
SUMMARY := verify unit tools plot sim model mutants crash bench e2e

# Of the model, what fits a minute.
test: export SHORT ?= yes
test: ## all parts from verify to e2e, then one summary (what CI runs)
	@rm -rf $(RESULTS); failed=0 times=
	took() { printf ' %s %d:%02d' "$$1" $$((($$2) / 60)) $$((($$2) % 60)); }
	for part in $(PARTS); do
		began=$$SECONDS
		$(MAKE) --no-print-directory $$part || { failed=1; echo "==> $$part failed"; }
		times+=$$(took $$part SECONDS-began)
	done
	echo; echo "==> Summary"
	go -C tools build -o $(BIN)/summary ./summary
	echo "min:s of$$times,$$(took all SECONDS)"
	$(BIN)/summary $(foreach part,$(SUMMARY),$(part)=$(RESULTS)/$(part).json) || failed=1
	exit $$failed

verify: $(BIN)/staticcheck $(BIN)/helm ## format, vet, lint, generated files, import tree, chart
	@tools/verify $(RESULTS)/verify.json

unit: $(BIN)/gotestsum ## tests with the race detector, and two seconds of each fuzz target; no root, no docker
	@mkdir -p $(RESULTS); failed=0
	tools/uml
	$(BIN)/gotestsum --format pkgname --hide-summary skipped --jsonfile $(RESULTS)/unit.json -- -race ./... || failed=1
	(cd tools && $(BIN)/gotestsum --format pkgname --jsonfile $(RESULTS)/tools.json -- ./...) || failed=1
	(cd bench/plot && $(BIN)/gotestsum --format pkgname --jsonfile $(RESULTS)/plot.json -- ./...) || failed=1
	cd $(CURDIR) && tools/fuzz 2s || failed=1
	exit $$failed

# One process for each core plays runs; the race detector would shuffle them.
.PHONY: sim
sim: $(BIN)/gotestsum ## whole clusters on one simulated clock, at their worst (SEEDS=1000, or SEED=n for one with its history)
	@mkdir -p $(RESULTS)
	$(if $(SEED),,SEEDS=$(or $(SEEDS),1000)) $(BIN)/gotestsum --format standard-verbose --jsonfile $(RESULTS)/sim.json -- -count 1 -timeout 0 -run '^(TestSimulation|TestSeedIsTheSameRunEachTime)$$' ./agent

.PHONY: model
model: ## the lease protocol in every order of events, small scopes, by spin (several min; SHORT=yes: what fits one)
	@mkdir -p $(RESULTS)
	MODEL_RESULTS=$(RESULTS)/model.json model/check $(if $(SHORT),--short)

e2e: $(BIN)/gotestsum kind-up image load ## scenarios on the kind cluster, which stays for the next time
	@mkdir -p $(RESULTS)
	$(BIN)/gotestsum --format standard-verbose --jsonfile $(RESULTS)/e2e.json -- -tags e2e -count 1 -p 1 -timeout 90m ./e2e/...

fuzz: ## every fuzz target for TIME each (20s)
	@tools/fuzz $(TIME)

mutants: $(BIN)/etcd $(BIN)/kube-apiserver ## plant each known bug in our own code and see which test catches it (ONLY=q: those whose names begin so)
	@mkdir -p $(RESULTS)
	nice go run ./mutants $(if $(ONLY),,-json $(RESULTS)/mutants.json) $(ONLY)

crash: build $(BIN)/etcd $(BIN)/kube-apiserver ## break eight real agents and their API server at random (MINUTES=2 SEED=1)
	@mkdir -p $(RESULTS)
	go build -o $(BIN)/crash ./e2e/crash
	$(BIN)/crash -json $(RESULTS)/crash.json $(if $(MINUTES),-minutes $(MINUTES)) $(if $(SEED),-seed $(SEED))

.PHONY: bench bench-docs counts microbench
bench: build $(BIN)/etcd $(BIN)/kube-apiserver $(if $(QUICK),,$(BIN)/whereabouts) ## what a pod start costs beside the alternatives, as root (PODS=1000 ROUNDS=5 LIMIT=2m PEER_LIMIT=5s IDLE=1m CROWD=10000)
	@go build -o $(BIN)/bench ./bench
	$(BIN)/bench $(if $(QUICK),--quick --json $(RESULTS)/bench.json) $(if $(PODS),--pods $(PODS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SYSTEMS),--systems $(SYSTEMS)) $(if $(SCENARIOS),--scenarios $(SCENARIOS)) $(if $(LIMIT),--limit $(LIMIT)) $(if $(PEER_LIMIT),--peer-limit $(PEER_LIMIT)) $(if $(IDLE),--idle $(IDLE)) $(if $(CROWD),--crowd $(CROWD))
	$(if $(QUICK),exit 0)
	go -C bench/plot build -o $(BIN)/bench-plot .
	rm -f $(BUILD)/bench/*.svg
	$(BIN)/bench-plot -dir $(BUILD)/bench
	echo "==> figures and pictures are in build/bench, make bench-docs shows them in docs/performance.md"

# The page has its tables between two marks, and beside it the pictures that it
# names.
bench-docs: ## put what `make bench` has found last into docs/performance.md
	@test -s $(BUILD)/bench/tables.md || { echo "there are no figures yet: run make bench" >&2; exit 1; }
	sed -i -e '/^<!-- tables -->$$/,/^<!-- end of tables -->$$/{//!d}' -e '/^<!-- tables -->$$/r $(BUILD)/bench/tables.md' docs/performance.md
	rm -rf docs/performance && mkdir docs/performance
	for picture in $$(grep -o '(performance/[a-z0-9-]*\.svg)' docs/performance.md | tr -d '()'); do
		cp $(BUILD)/bench/$${picture#*/} docs/$$picture
	done

counts: ## requests, failures and leaks of a few pods, judged: the part of bench that is the same on any machine
	@$(MAKE) --no-print-directory bench QUICK=yes

.PHONY: scale
scale: $(BIN)/etcd $(BIN)/kube-apiserver ## what many agents cost an API server, and how it grows (AGENTS="100 300 1000" PODS=3000 RATE=100 REPLICAS=5000 IDLE=1m HOLDDOWN=1m)
	@go build -o $(BIN)/scale ./bench/scale
	$(BIN)/scale $(if $(AGENTS),--agents "$$(tr -s ' ' , <<<"$(strip $(AGENTS))")") $(if $(PODS),--pods $(PODS)) $(if $(RATE),--rate $(RATE)) $(if $(REPLICAS),--replicas $(REPLICAS)) $(if $(IDLE),--idle $(IDLE)) $(if $(HOLDDOWN),--hold-down $(HOLDDOWN))

microbench: ## the hot paths with their allocations, ten times, for benchstat (into build/bench/micro.txt)
	@mkdir -p $(BUILD)/bench
	go test -run '^$$' -bench . -benchmem -count $(or $(COUNT),10) ./lease ./agent/journal ./agent/cluster ./agent/selection ./cni | tee $(BUILD)/bench/micro.txt

kind-up: ## start the kind cluster, or reuse it
	@kind/up

kind-down: ## delete the kind cluster, keep the images
	@kind/down

generate: ## API types to deepcopy, CRDs, and the chart's copy of them
	@crds/generate.sh
	rm -f charts/holdfast/crds/*.yaml
	cp crds/yaml/*.yaml charts/holdfast/crds/

build: ## the programs, static, into build/bin
	@CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o $(BIN)/ ./cmd/...

image: build ## the product's image, holdfast:dev
	@rm -rf $(BUILD)/image && mkdir -p $(BUILD)/image
	cp Dockerfile $(BIN)/holdfast $(BIN)/holdfast-cni $(BUILD)/image/
	DOCKER_BUILDKIT=0 docker build --quiet --tag $(IMAGE) $(BUILD)/image

load: ## copy the image into the cluster's nodes
	@kind/load $(IMAGE)

clean: ## remove what was built here, but not the cluster (demo-down does)
	@rm -rf $(BUILD)/test $(BUILD)/image
	find $(BIN) -maxdepth 1 -type f -delete 2>/dev/null || true

# Tools, each from the module that pins it.
$(BIN)/staticcheck $(BIN)/gotestsum &: tools/go.mod tools/go.sum
	@echo "==> Building staticcheck and gotestsum (usually 20 s)"
	mkdir -p $(BIN)
	cd tools && go build -o $(BIN)/ tool

# `make kind-up` builds them too, and for a cluster.
$(BIN)/etcd $(BIN)/kube-apiserver &:
	@echo "==> Building etcd and kube-apiserver (usually 5 min, with a warm Go cache 40 s)"
	mkdir -p $(BIN)
	cd kind/modules/etcd && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/etcd tool
	cd ../kubernetes && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/ k8s.io/kubernetes/cmd/kube-apiserver

# What Holdfast is measured against.
$(BIN)/whereabouts $(BIN)/nodeslicecontroller $(BIN)/host-local &: bench/modules/whereabouts/go.mod kind/modules/cni-plugins/go.mod
	@echo "==> Building Whereabouts and host-local (usually 1 min)"
	mkdir -p $(BIN)
	cd kind/modules/cni-plugins && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/ github.com/containernetworking/plugins/plugins/ipam/host-local
	cd $(CURDIR)/bench/modules/whereabouts
	whereabouts=github.com/k8snetworkplumbingwg/whereabouts
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/nodeslicecontroller $$whereabouts/cmd/nodeslicecontroller
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/whereabouts $$whereabouts/cmd
	rm -rf $(BIN)/whereabouts-crds && mkdir $(BIN)/whereabouts-crds
	install -m 644 "$$(go list -m -f '{{.Dir}}' $$whereabouts)"/doc/crds/$${whereabouts##*/}.cni.cncf.io_*.yaml $(BIN)/whereabouts-crds/

$(BIN)/helm:
	@echo "==> Building helm (usually 3 min, with a warm Go cache 20 s)"
	mkdir -p $(BIN)
	cd kind/modules/helm && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN)/ tool
