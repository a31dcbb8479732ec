# make demo demo-lab deps build test lint bench fmt clean

SHELL := /bin/bash
.DEFAULT_GOAL := build
export GOTOOLCHAIN := local

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/iserblk-tools
GOLANGCI_LINT := $(TOOLS)/golangci-lint-v2.15.0
GOFUMPT := $(TOOLS)/gofumpt-v0.12.0
GOVULNCHECK := $(TOOLS)/govulncheck-v1.1.4

.PHONY: deps build test lint fmt bench demo demo-lab clean

# What is not there is installed with apt, by root; anyone else is told how.
deps:
	@scripts/deps

build:
	@scripts/deps build
	go build -o bin/ ./cmd/iserblk

# TEST_FLAGS: see scripts/test --help.
test: deps build
	scripts/test $(TEST_FLAGS)

bench: deps build
	scripts/bench

# Needs Go and nothing else: no privilege, no packages, no VM. DEMO_FLAGS: see bin/demo/iserblk demo --help.
demo:
	@CGO_ENABLED=0 go build -o bin/demo/iserblk ./cmd/iserblk
	@bin/demo/iserblk demo $(DEMO_FLAGS)

# The same against Linux's own target, with a real block device, in a VM.
demo-lab: deps build
	scripts/demo

lint: deps $(GOLANGCI_LINT) $(GOFUMPT) $(GOVULNCHECK)
	go vet ./...
	$(GOLANGCI_LINT) run --allow-parallel-runners ./...
	@cgo=$$(go list -f '{{if .CgoFiles}}{{.ImportPath}}{{end}}' ./... | grep -vE '/verbs/rdmacore(/internal/|$$)'); \
		[[ -z $$cgo ]] || { echo "cgo lives in verbs/rdmacore, not in $$cgo"; exit 1; }
	@dirty=$$($(GOFUMPT) -l .); [[ -z $$dirty ]] || { echo "not formatted, run make fmt: $$dirty"; exit 1; }
	shellcheck -x -P SCRIPTDIR $$(scripts/shells)
	scripts/vulncheck $(GOVULNCHECK)

fmt: $(GOFUMPT)
	$(GOFUMPT) -w .

clean:
	rm -rf bin out
	go clean -testcache

# Tools have their version in their name, so a new version is built when it changes here.
$(GOLANGCI_LINT): PACKAGE = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(GOFUMPT): PACKAGE = mvdan.cc/gofumpt
$(GOVULNCHECK): PACKAGE = golang.org/x/vuln/cmd/govulncheck
$(GOLANGCI_LINT) $(GOFUMPT) $(GOVULNCHECK):
	GOBIN=$(TOOLS)/new go install $(PACKAGE)@$(lastword $(subst -, ,$(@F)))
	mv $(TOOLS)/new/$(notdir $(PACKAGE)) $@
