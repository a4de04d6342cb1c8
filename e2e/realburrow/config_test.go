package realburrow

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// addresses are those that config/burrow/burrow.toml leaves to its reader.
type addresses struct {
	zookeeper, api, webhook string
	local, other            string // Kafka clusters
}

// writeBurrowConfig writes Burrow's configuration into a new directory and returns that.
func writeBurrowConfig(t *testing.T, a addresses) string {
	t.Helper()
	config, err := burrowConfig(shippedBurrowConfig(t), a, absolute(t, filepath.Join(repository, "config/burrow/notification.tmpl")))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "burrow.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func shippedBurrowConfig(t *testing.T) string {
	t.Helper()
	shipped, err := os.ReadFile(filepath.Join(repository, "config/burrow/burrow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(shipped)
}

// burrowConfig makes the shipped configuration fit the test: with other addresses, shorter intervals
// and a second cluster. Everything else is tested as users get it.
func burrowConfig(shipped string, a addresses, template string) (string, error) {
	config, err := addCluster(shipped, "local", "other")
	if err != nil {
		return "", err
	}
	webhook := strconv.Quote("http://" + a.webhook + "/burrow")
	template = strconv.Quote(template)
	for _, change := range []struct{ section, key, value string }{
		{"zookeeper", "servers", list(a.zookeeper)},
		{"cluster.local", "servers", list(a.local)},
		{"cluster.local", "offset-refresh", "1"},
		{"cluster.local", "topic-refresh", "5"},
		{"consumer.local", "servers", list(a.local)},
		{"cluster.other", "servers", list(a.other)},
		{"cluster.other", "offset-refresh", "1"},
		{"cluster.other", "topic-refresh", "5"},
		{"consumer.other", "servers", list(a.other)},
		{"httpserver.default", "address", strconv.Quote(a.api)},
		{"notifier.karrot", "url-open", webhook},
		{"notifier.karrot", "url-close", webhook},
		{"notifier.karrot", "template-open", template},
		{"notifier.karrot", "template-close", template},
		{"notifier.karrot", "interval", interval},
	} {
		if config, err = setKey(config, change.section, change.key, change.value); err != nil {
			return "", err
		}
	}
	return config, nil
}

// addCluster repeats the cluster and consumer sections of a cluster under another name, as a user
// does who has two.
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

func list(address string) string { return "[ " + strconv.Quote(address) + " ]" }

func TestBurrowConfig(t *testing.T) {
	shipped := shippedBurrowConfig(t)
	a := addresses{
		zookeeper: "127.0.0.1:1", api: "127.0.0.1:2", webhook: "127.0.0.1:3", local: "127.0.0.1:4", other: "127.0.0.1:5",
	}
	config, err := burrowConfig(shipped, a, "/notification.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	for _, placeholder := range []string{"localhost:", "/etc/burrow/notification.tmpl\"", "interval=60"} {
		if !strings.Contains(shipped, placeholder) {
			t.Errorf("the shipped burrow.toml has no %s", placeholder)
		}
		if strings.Contains(config, placeholder) {
			t.Errorf("the test's burrow.toml still has %s", placeholder)
		}
	}
	for _, line := range []string{"threshold=1", "send-close=true", "expire-cache=10", "intervals=10"} {
		if !strings.Contains(config, "\n"+line+"\n") {
			t.Errorf("the test's burrow.toml has no %s, by which the test was measured", line)
		}
	}

	without := strings.Replace(shipped, "\ninterval=60\n", "\n#interval=60\n", 1)
	if _, err := burrowConfig(without, a, "/notification.tmpl"); err == nil {
		t.Error("a burrow.toml without the notifier's interval was taken")
	}
}
