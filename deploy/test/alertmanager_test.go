package deploy

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/lowess/karrot/deploy/test/internal/run"
)

// The labels that the configuration names are those that alerts have.
func TestAlertmanagerLabels(t *testing.T) {
	have := map[string]bool{"alertname": true}
	for _, file := range readUnitTests(t) {
		for _, test := range file.Tests {
			for _, alert := range test.Alerts {
				for _, expected := range alert.ExpAlerts {
					var labels struct {
						Labels map[string]string `yaml:"exp_labels"`
					}
					require.NoError(t, expected.Decode(&labels))
					for name := range labels.Labels {
						have[name] = true
					}
				}
			}
		}
	}
	type matchers []string
	config := readYAML[struct {
		Route struct {
			Receiver       string
			GroupBy        []string `yaml:"group_by"`
			GroupWait      string   `yaml:"group_wait"`
			GroupInterval  string   `yaml:"group_interval"`
			RepeatInterval string   `yaml:"repeat_interval"`
			Routes         []struct {
				Receiver string
				Matchers matchers
			}
		}
		Inhibit []struct {
			Source matchers `yaml:"source_matchers"`
			Target matchers `yaml:"target_matchers"`
			Equal  []string
		} `yaml:"inhibit_rules"`
		Receivers []map[string]any
	}](t, prometheusDir+"/alertmanager.yaml")
	names := config.Route.GroupBy
	all := matchers{}
	for _, route := range config.Route.Routes {
		all = append(all, route.Matchers...)
	}
	for _, rule := range config.Inhibit {
		names = append(names, rule.Equal...)
		all = append(append(all, rule.Source...), rule.Target...)
	}
	for _, matcher := range all {
		name, _, found := strings.Cut(matcher, "=")
		require.True(t, found, matcher)
		names = append(names, name)
	}
	require.Greater(t, len(names), 10)
	for _, name := range names {
		assert.True(t, have[name], "no alert has the label %s", name)
	}
}

// Which alerts a real Alertmanager holds back, with the example's configuration, while others fire.
func TestAlertmanagerInhibits(t *testing.T) {
	alert := func(name string, labels ...string) map[string]string {
		out := map[string]string{"alertname": name}
		for _, r := range allRules(readRules(t)) {
			if r.Alert == name && out["severity"] == "" {
				out["severity"] = r.Labels["severity"]
			}
		}
		require.NotEmpty(t, out["severity"], "there is no alert %s", name)
		for _, label := range labels {
			key, value, found := strings.Cut(label, "=")
			require.True(t, found)
			out[key] = value
		}
		return out
	}
	orders, billing := []string{"cluster=east", "group=orders"}, []string{"cluster=east", "group=billing"}
	full := []string{"job=karrot", "instance=k:8888", "receiver=burrow"}
	for name, c := range map[string]struct{ fire, told []map[string]string }{
		"the critical one of a group": {
			[]map[string]string{alert("KafkaConsumerStopped", orders...), alert("KafkaConsumerIncidentLong", orders...), alert("KafkaConsumerIncidentLong", billing...)},
			[]map[string]string{alert("KafkaConsumerStopped", orders...), alert("KafkaConsumerIncidentLong", billing...)},
		},
		"a critical group does not hide that groups are missing": {
			[]map[string]string{alert("KafkaConsumerStopped", orders...), alert("KafkaConsumerGroupsMissing", "cluster=east")},
			[]map[string]string{alert("KafkaConsumerStopped", orders...), alert("KafkaConsumerGroupsMissing", "cluster=east")},
		},
		"Karrot is down": {
			[]map[string]string{alert("KarrotDown", full...), alert("KafkaConsumerGroupsMissing", "cluster=east"), alert("KafkaConsumerVanishedInTrouble", orders...)},
			[]map[string]string{alert("KarrotDown", full...)},
		},
		"there is no Karrot": {
			[]map[string]string{alert("KarrotAbsent"), alert("KafkaConsumerGroupsMissing", "cluster=east")},
			[]map[string]string{alert("KarrotAbsent")},
		},
		"Burrow is silent": {
			[]map[string]string{alert("KarrotBurrowSilent", "job=karrot", "receiver=burrow"), alert("KafkaConsumerGroupsMissing", "cluster=east")},
			[]map[string]string{alert("KarrotBurrowSilent", "job=karrot", "receiver=burrow")},
		},
		"polls go on, so groups that are missing are missing": {
			[]map[string]string{alert("KarrotNoNotifications", "job=karrot", "receiver=burrow"), alert("KafkaConsumerGroupsMissing", "cluster=east")},
			[]map[string]string{alert("KarrotNoNotifications", "job=karrot", "receiver=burrow"), alert("KafkaConsumerGroupsMissing", "cluster=east")},
		},
		"the table is full": {
			[]map[string]string{
				alert("KarrotFull", "job=karrot", "outcome=table_full"), alert("KarrotLeavesOutPartitions", full...), alert("KarrotNearlyFull", append(full, "limit=max_groups")...),
				alert("KarrotNearlyFull", "job=other", "instance=o:8888", "receiver=burrow", "limit=max_groups"),
			},
			[]map[string]string{alert("KarrotFull", "job=karrot", "outcome=table_full"), alert("KarrotNearlyFull", "job=other", "instance=o:8888", "receiver=burrow", "limit=max_groups")},
		},
		"partitions are left out": {
			[]map[string]string{alert("KarrotLeavesOutPartitions", full...), alert("KarrotNearlyFull", append(full, "limit=max_partitions")...), alert("KarrotNearlyFull", append(full, "limit=max_groups")...)},
			[]map[string]string{alert("KarrotLeavesOutPartitions", full...), alert("KarrotNearlyFull", append(full, "limit=max_groups")...)},
		},
		"too much at once is not a full table": {
			[]map[string]string{alert("KarrotFull", "job=karrot", "outcome=busy"), alert("KarrotNearlyFull", append(full, "limit=max_groups")...)},
			[]map[string]string{alert("KarrotFull", "job=karrot", "outcome=busy"), alert("KarrotNearlyFull", append(full, "limit=max_groups")...)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.ElementsMatch(t, c.told, told(t, c.fire))
		})
	}
}

// told gives alerts to an Alertmanager, and returns those that it does not hold back.
func told(t *testing.T, alerts []map[string]string) []map[string]string {
	t.Helper()
	address := "127.0.0.1:" + run.Ports(t, 1)[0]
	config, err := filepath.Abs(prometheusDir + "/alertmanager.yaml")
	require.NoError(t, err)
	p := run.Start(t, t.TempDir(), nil, "prometheus-alertmanager", "--config.file="+config, "--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	p.Ready(t, 30*time.Second, "http://"+address+"/-/ready")
	post := func(alerts ...map[string]string) {
		var posted []map[string]any
		for _, labels := range alerts {
			posted = append(posted, map[string]any{"labels": labels})
		}
		body, err := json.Marshal(posted)
		require.NoError(t, err)
		status, answer := run.Post(t, "http://"+address+"/api/v2/alerts", string(body))
		require.Equal(t, http.StatusOK, status, answer)
	}
	post(alerts...)
	// It takes alerts in, one after the other, after it has answered: when the second of these is held back, it has taken all.
	last := []map[string]string{
		{"alertname": "KafkaConsumerStopped", "severity": "critical", "cluster": "last", "group": "last"},
		{"alertname": "KafkaConsumerIncidentLong", "severity": "warning", "cluster": "last", "group": "last"},
	}
	post(last...)

	var out []map[string]string
	run.WaitFor(t, 10*time.Second, func() string {
		var have []struct {
			Labels map[string]string
			Status struct{ InhibitedBy []string }
		}
		run.GetJSON(t, "http://"+address+"/api/v2/alerts", &have)
		if len(have) != len(alerts)+len(last) {
			return "not all alerts are there"
		}
		out = nil
		for _, a := range have {
			switch {
			case a.Labels["cluster"] != "last" && len(a.Status.InhibitedBy) == 0:
				out = append(out, a.Labels)
			case a.Labels["cluster"] == "last" && a.Labels["severity"] == "warning" && len(a.Status.InhibitedBy) == 0:
				return "the last alert is not held back"
			}
		}
		return ""
	})
	return out
}
