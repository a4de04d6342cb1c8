// Package chain runs producers and consumers, a real Kafka, a real Burrow set up with config/burrow, the karrot binary
// and Prometheus, and compares what is in Prometheus with what Kafka itself says: make e2e-chain.
package chain

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lowess/karrot/e2e/internal/run"
)

const (
	repository = "../.."
	// startTime is generous: it is spent only when something is wrong.
	startTime = 90 * time.Second
	cluster   = "local"
	// mirror is the same Kafka under another name, as a user has it who has two.
	mirror = "mirror"

	offsetsPartitions = 4
)

// Intervals in seconds. Those of config/burrow and of Karrot are made short, and keep their order.
const (
	offsetRefresh = 2
	topicRefresh  = 5
	expireCache   = 2
	notifyEvery   = 5
	pollEvery     = 5
	scrapeEvery   = 1
	minDistance   = 1
	// staleness is how old a value in Prometheus can be: it was read from Burrow a poll ago, which had it from its
	// cache, with a head read before that, and the consumers commit once a second. One more for the machine.
	staleness = (pollEvery + expireCache + offsetRefresh + scrapeEvery + 2) * time.Second
)

// pace is how fast a chain goes, in seconds. Where it is 0, Burrow does as the shipped configuration says.
type pace struct{ offsetRefresh, topicRefresh, expireCache, minDistance, notifyEvery, pollEvery int }

// Burrow's settings as they are shipped, in seconds.
const shippedOffsetRefresh, shippedExpireCache = 5, 1

// oldest is how old what Burrow tells can be when it is scraped.
func (p pace) oldest() time.Duration {
	return time.Duration(cmp.Or(p.expireCache, shippedExpireCache)+cmp.Or(p.offsetRefresh, shippedOffsetRefresh)+scrapeEvery+1) * time.Second
}

var quick = pace{offsetRefresh, topicRefresh, expireCache, minDistance, notifyEvery, pollEvery}

// servers are the running parts of one chain, with ports and folders of their own.
type servers struct {
	kafkaAddress, controllerAddress, zookeeperAddress            string
	webhookAddress, pageAddress, healthAddress, telemetryAddress string
	prometheusAddress, incidentsAddress                          string
	toldWebhookAddress, toldAPIAddress                           string
	expireAfter                                                  time.Duration
	pace                                                         pace

	kafka, zookeeper, karrot, prometheus *run.Process
	burrows                              []*burrow
	incidents                            *incidents
	told                                 *told
	dir                                  string
}

type burrow struct {
	*run.Process
	api     string // address
	started time.Time
}

// startServers starts a chain with n Burrows. Karrot polls the first one; all of them notify it.
func startServers(t *testing.T, n int, expireAfter time.Duration, pace pace) *servers {
	t.Helper()
	a := run.Addresses(t, 11)
	s := &servers{
		kafkaAddress: a[0], controllerAddress: a[1], zookeeperAddress: a[2],
		webhookAddress: a[3], pageAddress: a[4], healthAddress: a[5], telemetryAddress: a[6],
		prometheusAddress: a[7], incidentsAddress: a[8],
		toldWebhookAddress: a[9], toldAPIAddress: a[10],
		told:        &told{},
		expireAfter: expireAfter,
		pace:        pace,
		dir:         run.KeepOnFailure(t, filepath.Join(repository, "build", "e2e-chain")),
	}
	s.incidents = receiveIncidents(t, s.incidentsAddress)
	s.formatKafka(t)
	s.startKafka(t)
	s.startZooKeeper(t)
	s.waitForKafka(t)
	s.zookeeper.Listens(t, startTime, s.zookeeperAddress)
	for i := range n {
		s.burrows = append(s.burrows, &burrow{api: run.Addresses(t, 1)[0]})
		s.startBurrow(t, i)
	}
	s.told.listen(t, s.toldWebhookAddress, s.webhookAddress)
	s.told.listen(t, s.toldAPIAddress, s.burrows[0].api)
	s.startKarrot(t)
	s.startPrometheus(t)
	for i := range s.burrows {
		s.burrows[i].Ready(t, startTime, "http://"+s.burrows[i].api+"/burrow/admin/ready")
	}
	s.waitForKarrot(t)
	s.prometheus.Ready(t, startTime, "http://"+s.prometheusAddress+"/-/ready")
	return s
}

// folder makes a folder below that of the chain.
func (s *servers) folder(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *servers) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// java is a program of the class path that Maven wrote.
func (s *servers) java(t *testing.T, name, memory string, args ...string) run.Program {
	t.Helper()
	path, err := exec.LookPath("java")
	if err != nil {
		t.Fatalf("Kafka needs Java (Debian's package default-jre-headless): %v", err)
	}
	classpath, err := os.ReadFile(built(t, "KAFKA_CLASSPATH", "build/kafka.classpath"))
	if err != nil {
		t.Fatal(err)
	}
	return run.Program{
		Name: name, Path: path, Dir: s.dir,
		Args: append([]string{
			"-Xmx" + memory, "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xshare:auto",
			"-Djava.net.preferIPv4Stack=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
			"-Dzookeeper.jmx.log4j.disable=true", "-cp", strings.TrimSpace(string(classpath)),
		}, args...),
	}
}

func (s *servers) formatKafka(t *testing.T) {
	t.Helper()
	_, kafkaPort, _ := strings.Cut(s.kafkaAddress, ":")
	config := s.write(t, "kafka.properties", strings.Join([]string{
		"process.roles=broker,controller",
		"node.id=" + kafkaPort,
		"controller.quorum.voters=" + kafkaPort + "@" + s.controllerAddress,
		"controller.listener.names=CONTROLLER",
		"listeners=PLAINTEXT://" + s.kafkaAddress + ",CONTROLLER://" + s.controllerAddress,
		"advertised.listeners=PLAINTEXT://" + s.kafkaAddress,
		"log.dirs=" + s.folder(t, "kafka"),
		"auto.create.topics.enable=false",
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=" + strconv.Itoa(offsetsPartitions),
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"num.network.threads=2",
		"num.io.threads=2",
		// Old records of the compacted topic go while the test runs.
		"log.cleaner.backoff.ms=1000",
		"log.cleaner.dedupe.buffer.size=4194304",
	}, "\n")+"\n")
	format := s.java(t, "kafka-format", "128m", "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config)
	if output, err := exec.CommandContext(t.Context(), format.Path, format.Args...).CombinedOutput(); err != nil {
		t.Fatalf("format Kafka's storage: %v\n%s", err, output)
	}
}

func (s *servers) startKafka(t *testing.T) {
	t.Helper()
	s.kafka = s.java(t, "kafka", "512m", "kafka.Kafka", filepath.Join(s.dir, "kafka.properties")).Start(t)
}

func (s *servers) waitForKafka(t *testing.T) {
	t.Helper()
	s.kafka.Listens(t, startTime, s.kafkaAddress)
	admin := newAdmin(t, s.kafkaAddress)
	run.Until(t, startTime, "Kafka answers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		// Asking for a group makes Kafka create __consumer_offsets, and Burrow ends at its start if that is not there.
		const offsets = "__consumer_offsets"
		_, err := admin.FetchOffsets(ctx, "nobody")
		if err != nil {
			return err
		}
		heads, err := admin.ListEndOffsets(ctx, offsets)
		if err == nil {
			err = heads.Error()
		}
		if n := len(heads[offsets]); err == nil && n != offsetsPartitions {
			err = fmt.Errorf("%s has %d partitions", offsets, n)
		}
		return err
	})
}

func (s *servers) startZooKeeper(t *testing.T) {
	t.Helper()
	host, port, _ := strings.Cut(s.zookeeperAddress, ":")
	config := s.write(t, "zookeeper.properties", strings.Join([]string{
		"dataDir=" + s.folder(t, "zookeeper"),
		"clientPortAddress=" + host,
		"clientPort=" + port,
		"tickTime=1000",
		// The admin server would listen on all interfaces.
		"admin.enableServer=false",
	}, "\n")+"\n")
	s.zookeeper = s.java(t, "zookeeper", "128m", "org.apache.zookeeper.server.quorum.QuorumPeerMain", config).Start(t)
}

func (s *servers) startBurrow(t *testing.T, i int) {
	t.Helper()
	name := "burrow-" + strconv.Itoa(i)
	dir := s.folder(t, name)
	shipped := filepath.Join(repository, "config", "burrow")
	template, err := os.ReadFile(filepath.Join(shipped, "notification.tmpl"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(shipped, "burrow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := burrowConfig(string(config), s, i, s.write(t, name+"/notification.tmpl", string(template)))
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, name+"/burrow.toml", text)
	s.burrows[i].started = time.Now()
	s.burrows[i].Process = run.Program{
		Name: name, Path: built(t, "BURROW", "build/burrow"), Args: []string{"--config-dir", dir}, Dir: dir,
	}.Start(t)
}

// waitForBurrow waits until a Burrow has read what it judges.
func (s *servers) waitForBurrow(t *testing.T, i int) {
	t.Helper()
	s.burrows[i].Ready(t, startTime, "http://"+s.burrows[i].api+"/burrow/admin/ready")
}

func (s *servers) startKarrot(t *testing.T) {
	t.Helper()
	_, telemetryPort, _ := strings.Cut(s.telemetryAddress, ":")
	var args []string
	for _, config := range []string{"karrot", "api", "storage", "incidents"} {
		path, err := filepath.Abs(filepath.Join(repository, "config", config+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	// So that this test can read the events without a library for them.
	args = append(args, "--config", `yaml:exporters::otlp_http/incidents::encoding: json`,
		"--config", `yaml:exporters::otlp_http/incidents::compression: none`,
		"--config", `yaml:receivers::burrow::metrics::burrow.group.time_lag_is_lower_bound::enabled: true`)
	s.karrot = run.Program{
		Name: "karrot", Path: built(t, "KARROT_BIN", "bin/karrot"), Args: args, Dir: s.dir,
		Env: []string{
			"KARROT_ENDPOINT=" + s.webhookAddress,
			"KARROT_PROMETHEUS_ENDPOINT=" + s.pageAddress,
			"KARROT_HEALTH_ENDPOINT=" + s.healthAddress,
			"KARROT_TELEMETRY_HOST=127.0.0.1",
			"KARROT_TELEMETRY_PORT=" + telemetryPort,
			"KARROT_EXPIRE_AFTER=" + s.expireAfter.String(),
			"KARROT_BURROW_API=http://" + s.toldAPIAddress,
			"KARROT_BURROW_API_INTERVAL=" + strconv.Itoa(s.pace.pollEvery) + "s",
			"KARROT_STORAGE_DIRECTORY=" + s.folder(t, "storage"),
			"KARROT_INCIDENT_EXPORTERS=debug/incidents,otlp_http/incidents",
			"KARROT_OTLP_ENDPOINT=http://" + s.incidentsAddress,
		},
	}.Start(t)
}

func (s *servers) waitForKarrot(t *testing.T) {
	t.Helper()
	s.karrot.Ready(t, startTime, "http://"+s.healthAddress+"/heartbeat")
}

func (s *servers) startPrometheus(t *testing.T) {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("Prometheus is needed (Debian's package prometheus): %v", err)
	}
	config := s.write(t, "prometheus.yml", fmt.Sprintf(`
global:
  scrape_interval: %ds
  scrape_timeout: %ds
scrape_configs:
  - job_name: karrot
    static_configs: [{targets: [%q]}]
  - job_name: telemetry
    static_configs: [{targets: [%q]}]
`, scrapeEvery, scrapeEvery, s.pageAddress, s.telemetryAddress))
	s.prometheus = run.Program{
		Name: "prometheus", Path: path, Dir: s.dir,
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + s.folder(t, "prometheus"),
			"--web.listen-address=" + s.prometheusAddress, "--log.level=warn",
		},
	}.Start(t)
}

// built finds what make has built: at the path in a variable, or where make puts it.
func built(t testing.TB, variable, usual string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		path = filepath.Join(repository, usual)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("run this test with make e2e-chain, which builds what it needs: %v", err)
	}
	return path
}

// burrowConfig is the shipped burrow.toml with the addresses and the short intervals of a test.
func burrowConfig(config string, s *servers, i int, template string) (string, error) {
	config, err := addCluster(config, cluster, mirror)
	if err != nil {
		return "", err
	}
	quoted := func(address string) string { return "[ " + strconv.Quote(address) + " ]" }
	webhook := strconv.Quote("http://" + s.toldWebhookAddress + "/burrow")
	type change struct{ section, key, value string }
	changes := []change{
		{"zookeeper", "servers", quoted(s.zookeeperAddress)},
		{"cluster.local", "servers", quoted(s.kafkaAddress)},
		{"consumer.local", "servers", quoted(s.kafkaAddress)},
		{"cluster.mirror", "servers", quoted(s.kafkaAddress)},
		{"consumer.mirror", "servers", quoted(s.kafkaAddress)},
		{"httpserver.default", "address", strconv.Quote(s.burrows[i].api)},
		{"notifier.karrot", "url-open", webhook},
		{"notifier.karrot", "url-close", webhook},
		{"notifier.karrot", "template-open", strconv.Quote(template)},
		{"notifier.karrot", "template-close", strconv.Quote(template)},
	}
	for _, interval := range []struct {
		section, key string
		seconds      int
	}{
		{"cluster.local", "offset-refresh", s.pace.offsetRefresh},
		{"cluster.local", "topic-refresh", s.pace.topicRefresh},
		{"cluster.mirror", "offset-refresh", s.pace.offsetRefresh},
		{"cluster.mirror", "topic-refresh", s.pace.topicRefresh},
		{"storage.default", "min-distance", s.pace.minDistance},
		{"evaluator.default", "expire-cache", s.pace.expireCache},
		{"notifier.karrot", "interval", s.pace.notifyEvery},
	} {
		if interval.seconds > 0 {
			changes = append(changes, change{interval.section, interval.key, strconv.Itoa(interval.seconds)})
		}
	}
	for _, change := range changes {
		if config, err = setKey(config, change.section, change.key, change.value); err != nil {
			return "", err
		}
	}
	return config, nil
}

// addCluster repeats the cluster and consumer sections of a cluster under another name.
func addCluster(config, name, another string) (string, error) {
	for _, kind := range []string{"cluster", "consumer"} {
		header := "[" + kind + "." + name + "]\n"
		_, body, ok := strings.Cut(config, header)
		if !ok {
			return "", fmt.Errorf("burrow.toml has no section %s", strings.TrimSpace(header))
		}
		body, _, _ = strings.Cut(body, "\n[")
		config += "\n[" + kind + "." + another + "]\n" + body + "\n"
	}
	return setKey(config, "consumer."+another, "cluster", strconv.Quote(another))
}

// setKey replaces the value of a key, which has to be there exactly once.
func setKey(config, section, key, value string) (string, error) {
	lines := strings.Split(config, "\n")
	current, found := "", 0
	for i, line := range lines {
		if strings.HasPrefix(line, "[") {
			current = strings.Trim(line, "[]")
		}
		if current == section && strings.HasPrefix(line, key+"=") {
			lines[i] = key + "=" + value
			found++
		}
	}
	if found != 1 {
		return "", fmt.Errorf("burrow.toml sets %s %d times in [%s] instead of once", key, found, section)
	}
	return strings.Join(lines, "\n"), nil
}

func TestBurrowConfig(t *testing.T) {
	shipped, err := os.ReadFile(filepath.Join(repository, "config", "burrow", "burrow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	s := &servers{
		kafkaAddress: "127.0.0.1:1", zookeeperAddress: "127.0.0.1:2", toldWebhookAddress: "127.0.0.1:3",
		burrows: []*burrow{{api: "127.0.0.1:4"}}, pace: quick,
	}
	config, err := burrowConfig(string(shipped), s, 0, "/notification.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	for _, placeholder := range []string{"localhost:", "/etc/burrow/notification.tmpl\"", "interval=60"} {
		if !strings.Contains(string(shipped), placeholder) {
			t.Errorf("the shipped burrow.toml has no %s", placeholder)
		}
		if strings.Contains(config, placeholder) {
			t.Errorf("the test's burrow.toml still has %s", placeholder)
		}
	}
	for key, value := range map[string]int{"offset-refresh": shippedOffsetRefresh, "expire-cache": shippedExpireCache} {
		if line := fmt.Sprintf("\n%s=%d\n", key, value); !strings.Contains(string(shipped), line) {
			t.Errorf("the shipped burrow.toml has no %s", strings.TrimSpace(line))
		}
	}
	// What the test takes for given and does not set.
	lines := strings.Split(config, "\n")
	for _, line := range []string{"threshold=1", "send-close=true", "intervals=10"} {
		if !slices.Contains(lines, line) {
			t.Errorf("the shipped burrow.toml has no %s", line)
		}
	}
	without := strings.Replace(string(shipped), "\ninterval=60\n", "\n#interval=60\n", 1)
	if _, err := burrowConfig(without, s, 0, "/notification.tmpl"); err == nil {
		t.Error("a burrow.toml without the notifier's interval was taken")
	}
}
