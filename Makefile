# maskrelay: what a person runs is what CI runs.
#
#   make test     install the parts that the tests need (where it may), lint, all tests with the race detector;
#                 with CI=true the fuzz targets of what strangers send (CI_FUZZ) for 30 s each after them (else all have their seeds only)
#   make lint     format, vet, and the analysers pinned in go.mod
#   make soak     everything that customers and vendors do, for SOAK_TIME (5m), each byte looked at; RACE=1: a relay with the race detector
#   make bench    the built binary beside other relays (installed where it may): tables as Markdown, a chart; BENCH_ARGS=-help tells the choices
#   make fuzz     every fuzz target for FUZZTIME (1m) each, four at a time
#   make demo     the relay, a stand-in vendor and a target on loopback
#   make build    bin/maskrelay
#   make image    the container image (docker, podman or buildah)

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT    ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
FUZZTIME  ?= 1m
# What customers and vendors send, and what is made of it. The others parse what operators write.
CI_FUZZ    = FuzzParseTarget FuzzParseConnect FuzzIncoming FuzzSplitUsername FuzzParams FuzzTemplate FuzzParseBasic FuzzParseProxyHeader FuzzPolicyHeaders \
             FuzzRequestHead FuzzAppendInOrder FuzzAnswerHead FuzzParseReply FuzzRepliesAgree FuzzSOCKS5Reply FuzzParseFile
TEST_TIMEOUT ?= 15m
IMAGE     ?= maskrelay:$(VERSION)
ENGINE    ?= $(firstword $(foreach e,docker podman buildah,$(shell command -v $(e) 2>/dev/null)))

GO_TEXT = find . -name .git -prune -o -name bin -prune -o -type f \( -name '*.go' -o -name '*.md' -o -name '*.sh' \) -print0

# bodyclose does not follow a response that is handed on. Each exception is a place where another closes it:
#   _test.go               helpers that return a response to their test, or close it for one
#   upstream/transport.go  Do returns the response, whose body its caller closes
#   proxy/upgrade.go       a 101 has no body; any other answer goes to upgradeRefused, which closes it
#   integration/bench/relays.go  goproxy sends the response that it is given, and closes it
BODYCLOSE_EXCEPT = -e '^\#' -e '_test\.go:' -e '^upstream/transport\.go:' -e '^proxy/upgrade\.go:' -e '^integration/bench/relays\.go:'

# gosec looks at what is shipped: not at tests, nor at what only tests and benchmarks run, which starts programs, writes files for them and
# plays hostile parts on purpose. Of its rules these are off:
#   G103  unsafe: one file has it, proxy/tunnel/sys_linux.go, for system calls; TestArrows refuses it anywhere else
#   G104  unhandled errors: errcheck looks for them, and knows the writers that cannot fail
#   G304  a file named by a variable: every such name is the operator's, from the environment or the command line
#   G404  math/rand: it spreads work over time and gateways; TestArrows names the packages that may have it, and what must not be guessed
#         (keys, ids) comes from crypto/rand
# An exception in the code is "#nosec RULE -- why".
GOSEC_ARGS = -quiet -terse -exclude=G103,G104,G304,G404 -exclude-dir=integration -exclude-dir=upstream/upstreamtest -exclude-dir=proxy/usage/usagetest
GOSEC_SEES = go.mod go.sum Makefile $(shell find cmd masking proxy upstream -name '*.go' ! -name '*_test.go')

.PHONY: test parts lint soak bench fuzz demo build image clean

test: parts lint
	go test -race -shuffle=on -timeout=$(TEST_TIMEOUT) ./...
	$(if $(filter true,$(CI)),FUZZTIME=30s integration/fuzz.sh $(CI_FUZZ))

# The outside programs that the integration tests start or use as customers. CI=true makes a missing one an error.
parts:
	@integration/install-parts.sh

lint: bin/gosec-found-nothing
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt -w is needed for:"; echo "$$out"; exit 1; fi
	go vet ./...
	@out=$$(go vet -vettool="$$(go tool -n bodyclose)" ./... 2>&1 | grep -v $(BODYCLOSE_EXCEPT) || true); if [ -n "$$out" ]; then echo "bodyclose:"; echo "$$out"; exit 1; fi
	go vet -vettool="$$(go tool -n zerologlint)" ./...
	go tool staticcheck ./...
	go tool errcheck ./...
	go tool go-errorlint ./...
	integration/vulns.sh
	$(GO_TEXT) | xargs -0 -r go tool misspell -error

# gosec keeps no cache and takes half a minute: it looks again only when what it looks at has changed.
bin/gosec-found-nothing: $(GOSEC_SEES)
	go tool gosec $(GOSEC_ARGS) ./...
	@mkdir -p bin && touch $@

# SOAK_SEED=… makes the choices of an earlier run again. "make test" has a short form of it.
SOAK_TIME ?= 5m

soak:
	SOAK_TIME=$(SOAK_TIME) go test -count=1 -v $(if $(filter-out 0,$(RACE)),-race,) -run='^TestSoak$$' -timeout=0 ./integration/soak

# A choice of one's own does not replace the chart that is checked in.
BENCH_ARGS ?= -svg integration/bench/bench.svg

bench: build
	@integration/install-parts.sh bench >&2
	go build -trimpath -o bin/bench ./integration/bench
	bin/bench $(BENCH_ARGS)

# FUZZ names some targets; all run without it.
fuzz:
	FUZZTIME=$(FUZZTIME) integration/fuzz.sh $(FUZZ)

demo:
	go run ./cmd/maskrelay demo

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o bin/maskrelay ./cmd/maskrelay

image:
	@[ -n "$(ENGINE)" ] || { echo "image: none of docker, podman and buildah is installed" >&2; exit 1; }
	$(ENGINE) build $(if $(filter %buildah,$(ENGINE)),--format docker,) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) -t $(IMAGE) -t maskrelay:latest .

clean:
	rm -rf bin
