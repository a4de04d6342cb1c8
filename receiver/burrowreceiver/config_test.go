package burrowreceiver

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap/confmaptest"
	"go.opentelemetry.io/collector/confmap/xconfmap"
)

// Each section of testdata/config.yaml is a configuration of the receiver.
func loadConfig(t *testing.T, name string) (*Config, error) {
	t.Helper()
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	section, err := conf.Sub(name)
	require.NoError(t, err)
	cfg := createDefaultConfig().(*Config)
	if err := section.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, xconfmap.Validate(cfg)
}

func TestConfig(t *testing.T) {
	for name, want := range map[string]func(*Config){
		"default": func(*Config) {},
		"webhook": func(c *Config) { c.Webhook.Get().Path = "/kafka" },
		"api":     func(c *Config) { c.API.GetOrInsertDefault() },
		// As ${env:NAME:-} leaves them: both turn polling off, and a default of the receiver does not turn it on.
		"api_empty_endpoint": func(c *Config) { c.API = configoptional.None[APIConfig]() },
		"api_alone": func(c *Config) {
			c.Webhook = configoptional.None[WebhookConfig]()
			api := c.API.GetOrInsertDefault()
			api.Client.Endpoint = "https://burrow.example.org/proxied"
			api.Client.Timeout = 3 * time.Second
			api.CollectionInterval = time.Minute
			api.OffsetsInterval = 5 * time.Second
			api.InitialDelay = 0
			api.MaxConcurrentRequests = 50
			api.MaxAnswerSize = 1000
			c.Clusters.Include = []string{"^east$"}
			c.Groups.Exclude = []string{"^console-", "-test$"}
			api.Topics.Include = []string{"orders"}
		},
		"everything": func(c *Config) {
			c.Webhook.Get().Server.NetAddr.Endpoint = "0.0.0.0:8080"
			c.Webhook.Get().Path = "/"
			c.Webhook.Get().Server.MaxRequestBodySize = 1024
			c.Webhook.Get().Server.ReadTimeout = 3 * time.Second
			c.Webhook.Get().Server.CompressionAlgorithms = []string{"", "gzip"}
			c.Webhook.Get().MaxConnections = 7
			c.Page = PageConfig{Path: "/karrot/"}
			c.Interval = 250 * time.Millisecond
			c.ExpireAfter = time.Hour
			c.MaxGroups = 5
			c.MaxPartitions = 6
			c.Storage = &storageID
			c.LogIncidents = true
			c.Metrics.BurrowPartitionLag.Enabled = false
			c.Metrics.BurrowPartitionOwner.Enabled = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := loadConfig(t, name)
			require.NoError(t, err)
			expected := createDefaultConfig().(*Config)
			want(expected)
			// What was written is noted beside each metric, too.
			want, got := reflect.ValueOf(expected.Metrics), reflect.ValueOf(cfg.Metrics)
			for i := range want.NumField() {
				assert.Equal(t, want.Field(i).FieldByName("Enabled").Bool(), got.Field(i).FieldByName("Enabled").Bool(), want.Type().Field(i).Name)
			}
			expected.MetricsBuilderConfig = cfg.MetricsBuilderConfig
			assert.Equal(t, expected, cfg, "every other field")
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for name, want := range map[string]string{
		"bad_page_path":         `page.path must be a plain path such as / or /karrot/, got "karrot"`,
		"bad_page_folder":       `page.path must be a plain path such as / or /karrot/, got "/a/../b"`,
		"bad_path":              `webhook.path must begin with /, got "burrow"`,
		"bad_query":             `webhook.path must be without query and fragment, got "/burrow?a=b"`,
		"no_endpoint":           `webhook.endpoint must be set, for example to localhost:5000`,
		"bad_endpoint":          `webhook.endpoint must be a host and a port as in localhost:5000, got "localhost"`,
		"unix_endpoint":         `webhook.endpoint must be a host and a port as in localhost:5000, or beside transport: unix the path alone, got "unix:///run/karrot.sock"`,
		"unix_path":             `webhook.endpoint must be a host and a port as in localhost:5000, or beside transport: unix the path alone, got "/run/karrot.sock"`,
		"bad_body_size":         `webhook.max_request_body_size must not be negative, got -1`,
		"no_unit":               `interval must be at least 10ms, written with its unit as in 1s, got "30ns"`,
		"expires_too_early":     `expire_after must be longer than interval (1m0s) and than the time between two notifications of a group, written with its unit as in 5m, got "30s"`,
		"no_groups":             `max_groups must be at least 1, got 0`,
		"no_partitions":         `max_partitions must be at least 1, got -1`,
		"api_no_endpoint_alone": `webhook or api (with an endpoint) must be enabled: nothing else tells the receiver of groups`,
		"nothing":               `webhook or api (with an endpoint) must be enabled: nothing else tells the receiver of groups`,
		"api_endpoint":          `api.endpoint must be a URL as in http://localhost:8000, got "burrow:8000"`,
		"api_password":          `api.endpoint must be a URL as in http://localhost:8000, without user and password, for which there are auth and headers`,
		"api_interval":          `api.collection_interval must be at least 1s, written with its unit, got "30ns"`,
		"api_offsets":           `api.offsets_interval must be at least 1s, written with its unit, got "10ns"`,
		"api_delay":             `api.initial_delay must not be negative, got "-1s"`,
		"api_timeout":           `api.timeout must be at least 1ms, written with its unit as in 10s, got "0s"`,
		"api_requests":          `api.max_concurrent_requests must be at least 1, got 0`,
		"api_answer":            `api.max_answer_size must be at least 1, got 0`,
		"no_connections":        `webhook.max_connections must be at least 1, got 0`,
		"cors":                  `webhook.cors is not supported`,
		"moved_filters":         "api.clusters must be written as clusters, one level up in the receiver: it holds for notifications too\napi.groups must be written as groups",
		"bad_topics":            "api.topics.include[0] must be a regular expression (RE2), got \"*\"",
		"bad_filter":            "groups.exclude[1] must be a regular expression (RE2), got \"(\": error parsing regexp: missing closing ): `(`",
		"api_expires":           `expire_after must be longer than twice api.collection_interval (2m30s), so that one poll can fail, written with its unit as in 10m, got "5m0s"`,
		"unknown_key":           `has invalid keys: expire_afer`,
		"unknown_metric":        `has invalid keys: burrow.group.lag`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(t, name)
			require.ErrorContains(t, err, want)
		})
	}
}
