# Targets are listed by `make help`. Figures in the docs come from the targets named bench-*.

SHELL := /bin/sh
BIN := bin/karrot
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

TOOLS := $(CURDIR)/internal/tools/go.mod
TOOL := go tool -modfile=$(TOOLS)
# Modules with tests of their own.
MODULES := cmd/karrot e2e e2e/chain e2e/page

# The race detector needs a C compiler. CI has one.
RACE := $(if $(shell command -v gcc || command -v clang),-race)
GOTEST := go test -count=1

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

## Running

.PHONY: build
build: ## Build bin/karrot: stripped, with the version from git
	@mkdir -p bin build
	cd cmd/karrot && CGO_ENABLED=0 go build -trimpath -ldflags='-s -w -X main.version=$(VERSION)' -o ../../$(BIN) .

.PHONY: run
run: build ## Build and start with the default configuration
	@{ $(BIN) 2>&1; echo $$? > build/exit; } | { trap '' INT TERM; \
	while IFS= read -r line; do \
		printf '%s\n' "$$line"; \
		case $$line in *"Everything is ready"*) \
			echo "Burrow posts to  http://$(or $(KARROT_ENDPOINT),localhost:5000)/burrow"; \
			echo "Metrics are at   http://$(or $(KARROT_PROMETHEUS_ENDPOINT),localhost:8889)/metrics";; \
		esac; \
	done; }; exit $$(cat build/exit)

SPEED ?= 20
.PHONY: demo
demo: build ## Replay recorded Burrow traffic into bin/karrot, SPEED times as fast (20)
	cd e2e && go run ./demo -bin ../$(BIN) -speed $(SPEED)

## Checking

.PHONY: test
test: ## Test the receiver, the configurations in the binary and its commands
	$(GOTEST) $(RACE) ./...
	@# Each benchmark once: what one asserts, its memory among it, must hold.
	@mkdir -p build
	$(GOTEST) -run '^$$' -bench . -benchtime 1x ./receiver/... >build/bench-once.txt || { cat build/bench-once.txt; exit 1; }
	cd cmd/karrot && $(GOTEST) ./...

.PHONY: e2e
e2e: build ## Test the binary
	cd e2e && KARROT_BIN=$(CURDIR)/$(BIN) $(GOTEST) -timeout 30m -skip '^TestPeer' ./...

.PHONY: attack
attack: build ## Attack the binary, show what each attack takes, and hold the times (e2e holds the rest)
	cd e2e && KARROT_ATTACK_MEASURE=1 KARROT_BIN=$(CURDIR)/$(BIN) go test -count=1 -run '^TestAttack$$' -v -timeout 15m . >../build/attack.txt 2>&1; \
	status=$$?; grep -E 'figures|^ *--- |^(ok|FAIL)|Error' ../build/attack.txt; exit $$status

.PHONY: vuln
vuln: ## Look for known vulnerabilities, where the database can be reached
	@mkdir -p build; status=0; for d in . cmd/karrot; do \
		(cd $$d && $(TOOL) govulncheck ./...) >build/vuln.txt 2>&1 || status=$$?; \
		if grep -qE 'fetching vulnerabilities|vuln.go.dev' build/vuln.txt && [ $$status -ne 0 ] && ! grep -q '^Vulnerability #' build/vuln.txt; then \
			echo "NOT CHECKED for known vulnerabilities: the database at https://vuln.go.dev can't be reached"; exit 0; fi; \
		cat build/vuln.txt; [ $$status -eq 0 ] || exit $$status; \
	done

# RUN chooses tests by name, as go test -run does.
RUN ?= .
.PHONY: e2e-chain
e2e-chain: build build/burrow build/kafka.classpath ## Test the binary with a real Kafka, Burrow and Prometheus (RUN='TestChain/scenarios/stopped' for one scenario)
	cd e2e/chain && KARROT_BIN=$(CURDIR)/$(BIN) BURROW=$(CURDIR)/build/burrow KAFKA_CLASSPATH=$(CURDIR)/build/kafka.classpath \
		$(GOTEST) -timeout 15m -run '$(RUN)' ./...

.PHONY: chain-settings
chain-settings: build/burrow build/kafka.classpath ## Measure what Burrow's settings detect, with a real Kafka and Burrow, and write it into docs/operating.md (15 minutes)
	cd e2e/chain && BURROW=$(CURDIR)/build/burrow KAFKA_CLASSPATH=$(CURDIR)/build/kafka.classpath \
		go test -count=1 -timeout 20m -run '^(TestSettings|TestRefreshCost)$$' -v ./... -args -settings-report

.PHONY: chain-timelag
chain-timelag: build build/burrow build/kafka.classpath ## Measure time lags with a real Kafka and Burrow at their shipped intervals, and write them into docs/time-lag.md (five minutes)
	cd e2e/chain && KARROT_BIN=$(CURDIR)/$(BIN) BURROW=$(CURDIR)/build/burrow KAFKA_CLASSPATH=$(CURDIR)/build/kafka.classpath \
		go test -count=1 -timeout 15m -run '^TestTimeLags$$' -v ./... -args -timelag-report

# The version of Burrow is that of the module.
build/burrow: e2e/chain/go.mod
	@mkdir -p build
	cd e2e/chain && CGO_ENABLED=0 go build -o ../../$@ github.com/linkedin/Burrow

# Maven fetches Kafka and ZooKeeper, and says where it has put them.
build/kafka.classpath: e2e/chain/kafka/pom.xml
	@mkdir -p build
	mvn -B -q -f $< dependency:build-classpath -Dmdep.outputFile=$(CURDIR)/$@

.PHONY: e2e-peers
e2e-peers: build build/moto/installed ## Test the binary with moto for AWS, Prometheus, promtool and another collector
	cd e2e && KARROT_BIN=$(CURDIR)/$(BIN) $(GOTEST) -timeout 10m -run '^TestPeer' .

build/moto/installed: e2e/testdata/moto/requirements.txt
	python3 -m venv build/moto
	build/moto/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.PHONY: e2e-page
e2e-page: build ## Test the page in Chromium (apt-get install chromium; npm for axe)
	cd e2e/page && npm ci && KARROT_BIN=$(CURDIR)/$(BIN) $(GOTEST) -timeout 20m ./...

.PHONY: check
check: lint tidy generated vuln test e2e e2e-peers e2e-page e2e-chain ## All of it: format, lint, generated files, tests, binary

.PHONY: lint
lint: ## Check format and code
	$(TOOL) golangci-lint run ./...
	@for m in $(MODULES); do (set -ex; cd $$m && $(TOOL) golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

.PHONY: fmt
fmt: ## Format the code
	$(TOOL) golangci-lint fmt ./...
	@for m in $(MODULES); do (cd $$m && $(TOOL) golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...) || exit 1; done

.PHONY: tidy
tidy: ## Check that the module files are tidy
	go mod tidy -diff
	@for m in $(MODULES); do (set -ex; cd $$m && go mod tidy -diff) || exit 1; done

.PHONY: generate
generate: ## Write the generated files: mdatagen for the receiver, ocb for the distribution
	cd receiver/burrowreceiver && $(TOOL) mdatagen metadata.yaml
	@# The checksums that are known already, so that nothing has to be looked up.
	@mkdir -p build/ocb && cp cmd/karrot/go.sum build/ocb/
	$(TOOL) builder --config builder-config.yaml --skip-compilation
	@# All that ocb writes but main.go, which is written by hand.
	cd build/ocb && cp components.go main_others.go main_windows.go go.mod ../../cmd/karrot/
	cd cmd/karrot && go mod tidy

GENERATED := receiver/burrowreceiver cmd/karrot
.PHONY: generated
generated: ## Check that the generated files are up to date
	@set -e; before=$$(mktemp -d); trap 'rm -rf "$$before"' EXIT; \
	cp -R --parents $(GENERATED) "$$before"; \
	$(MAKE) --no-print-directory generate; \
	for d in $(GENERATED); do diff -r "$$before/$$d" "$$d" || { echo "$$d was stale: run make generate"; exit 1; }; done

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: ## Fuzz the decoders, the webhook and the records of the storage, FUZZTIME each (60s)
	go test ./receiver/burrowreceiver/internal/burrow -run '^$$' -fuzz FuzzDecode -fuzztime $(FUZZTIME)
	go test ./receiver/burrowreceiver/internal/burrow -run '^$$' -fuzz FuzzLag -fuzztime $(FUZZTIME)
	go test ./receiver/burrowreceiver -run '^$$' -fuzz FuzzWebhook -fuzztime $(FUZZTIME)
	go test ./receiver/burrowreceiver/internal/groups -run '^$$' -fuzz FuzzRestore -fuzztime $(FUZZTIME)

## Measuring

.PHONY: bench
bench: ## Measure decoding, table, mapping and memory
	go test ./receiver/burrowreceiver/... -run '^$$' -bench . -benchtime 1s

.PHONY: bench-api
bench-api: ## Measure a poll of a large Burrow beside the plainest client, in turns
	go test ./receiver/burrowreceiver -run '^TestAPIReport$$' -count=1 -v -args -api-report | grep -v -E '^(===|---|PASS)'

.PHONY: bench-cloudwatch
bench-cloudwatch: build ## Measure what a CloudWatch that is away for a minute does to the webhook and to Prometheus
	cd e2e && KARROT_BIN=$(CURDIR)/$(BIN) KARROT_E2E_OUTAGE=60s KARROT_E2E_INTERVAL=30 go test -count=1 -run '^TestCloudWatchAway' -v -timeout 30m .

.PHONY: cloudwatch-outages
cloudwatch-outages: build ## Let CloudWatch be away for a minute in each way, and write what is lost into docs/cloudwatch.md
	cd e2e && KARROT_BIN=$(CURDIR)/$(BIN) KARROT_E2E_OUTAGE=60s KARROT_E2E_WRITE=1 go test -count=1 -run '^TestCloudWatchOutages$$' -v -timeout 15m . >../build/outages.txt 2>&1; \
	status=$$?; grep -E '^ *\||^(ok|FAIL)|Error' ../build/outages.txt; exit $$status

.PHONY: bench-limits
bench-limits: build ## Measure what groups and partitions cost in memory, with the page and with remote write alone
	cd e2e && KARROT_E2E_LIMITS=1 KARROT_BIN=$(CURDIR)/$(BIN) go test -count=1 -run '^TestLimitsInMemory$$' -v -timeout 15m . >../build/limits.txt 2>&1; \
	status=$$?; grep -E 'figures|^(ok|FAIL)|Error' ../build/limits.txt; exit $$status

.PHONY: bench-size
bench-size: build ## Measure processor, memory and series for 100, 2,000 and 10,000 groups, by webhook and by polling (12 minutes)
	cd e2e && KARROT_E2E_SIZES=1 KARROT_BIN=$(CURDIR)/$(BIN) go test -count=1 -run '^TestSizes$$' -v -timeout 30m . >../build/sizes.txt 2>&1; \
	status=$$?; grep -E 'figures|^(ok|FAIL)|Error' ../build/sizes.txt; exit $$status

.PHONY: bench-http
bench-http: build ## Measure CPU per notification beside plain servers, interleaved (OTHER=name=url,pid+pid adds a running one)
	cd e2e && go run ./benchhttp -bin ../$(BIN) $(if $(OTHER),-other '$(OTHER)')

.PHONY: bench-page
bench-page: build ## Measure the page with 10,000 groups, and what 100 open pages cost the webhook (needs Chromium)
	cd e2e/page && go run ./bench -bin ../../$(BIN)

.PHONY: timelag-report
timelag-report: ## Measure time lags against the truth and write docs/time-lag.md
	cd receiver/burrowreceiver && go test -count=1 -run TestTimeLagAgainstTheTruth -timelag-report

.PHONY: screenshots
screenshots: build ## Make the pictures of the page in docs/page from the recorded traffic (needs Chromium)
	cd e2e/page && go run ./screenshots -bin ../../$(BIN)

## Image

.PHONY: image
image: ## Build the image with buildah (GO_IMAGE and VERSION are build arguments)
	buildah bud --layers=false --build-arg VERSION=$(VERSION) -t karrot .

.PHONY: image-test
image-test: ## Build the image from what this machine has, run it, and stop it
	e2e/image/test.sh

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin build

## Deploying

MODULES += deploy/test deploy/test/keda

.PHONY: test-deploy
test-deploy: build build/cfn-lint/installed build/moto/installed deploy/test/dashboard/node_modules ## Test what is in deploy/ (needs Debian's prometheus and prometheus-alertmanager, Python's venv, npm)
	cd deploy/test && PATH="$(CURDIR)/build/cfn-lint/bin:$$PATH" KARROT_BIN=$(CURDIR)/$(BIN) $(GOTEST) -timeout 20m ./...
	cd deploy/test/keda && $(GOTEST) ./...

.PHONY: dashboard-pictures
dashboard-pictures: build deploy/test/dashboard/node_modules ## Draw the pictures of the dashboard in docs/dashboard from recorded traffic (five minutes; needs Prometheus, npm and Chromium)
	cd deploy/test && KARROT_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 15m -run '^TestDashboardPictures$$' -v . -args -pictures

deploy/test/dashboard/node_modules: deploy/test/dashboard/package-lock.json
	cd deploy/test/dashboard && npm ci --ignore-scripts
	touch $@

build/cfn-lint/installed:
	python3 -m venv build/cfn-lint
	build/cfn-lint/bin/python -m pip install --quiet --disable-pip-version-check cfn-lint==1.51.0
	touch $@

check: test-deploy

## Releasing

MODULES += release

.PHONY: release-snapshot
release-snapshot: ## Make the files of a release in build/release and check them (needs buildah)
	cd release && go run .

.PHONY: release-test
release-test: ## Test that two releases of one source are the same bytes, and that spoilt ones are noticed (needs buildah)
	cd release && $(GOTEST) -timeout 20m ./...

.PHONY: release-cold
release-cold: ## The same, and compile everything again for the second one: minutes
	cd release && go test -count=1 -timeout 60m -run '^TestTwice$$' ./... -args -cold

check: release-test
