package burrowreceiver

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
		"everything": func(c *Config) {
			c.Webhook.Get().Server.NetAddr.Endpoint = "0.0.0.0:8080"
			c.Webhook.Get().Path = "/"
			c.Webhook.Get().Server.MaxRequestBodySize = 1024
			c.Webhook.Get().Server.ReadTimeout = 3 * time.Second
			c.Interval = 250 * time.Millisecond
			c.ExpireAfter = time.Hour
			c.MaxGroups = 5
			c.MaxPartitions = 6
			c.Metrics.BurrowPartitionLag.Enabled = false
			c.Metrics.BurrowPartitionOwner.Enabled = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := loadConfig(t, name)
			require.NoError(t, err)
			expected := createDefaultConfig().(*Config)
			want(expected)
			assert.Equal(t, expected.Webhook, cfg.Webhook)
			assert.Equal(t, expected.Interval, cfg.Interval)
			assert.Equal(t, expected.ExpireAfter, cfg.ExpireAfter)
			assert.Equal(t, expected.MaxGroups, cfg.MaxGroups)
			assert.Equal(t, expected.MaxPartitions, cfg.MaxPartitions)
			assert.Equal(t, expected.Metrics.BurrowPartitionLag.Enabled, cfg.Metrics.BurrowPartitionLag.Enabled)
			assert.Equal(t, expected.Metrics.BurrowPartitionOwner.Enabled, cfg.Metrics.BurrowPartitionOwner.Enabled)
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for name, want := range map[string]string{
		"bad_path":          `webhook.path must begin with /, got "burrow"`,
		"bad_query":         `webhook.path must be without query and fragment, got "/burrow?a=b"`,
		"no_endpoint":       `webhook.endpoint must be set, for example to localhost:5000`,
		"bad_endpoint":      `webhook.endpoint must be a host and a port as in localhost:5000, got "localhost"`,
		"bad_body_size":     `webhook.max_request_body_size must not be negative, got -1`,
		"no_unit":           `interval must be at least 10ms, written with its unit as in 1s, got "30ns"`,
		"expires_too_early": `expire_after must be longer than interval (1m0s) and than the distance of Burrow's notifications, got "30s"`,
		"no_groups":         `max_groups must be at least 1, got 0`,
		"no_partitions":     `max_partitions must be at least 1, got -1`,
		"nothing":           `webhook must be enabled: nothing else tells the receiver of groups`,
		"unknown_key":       `has invalid keys: expire_afer`,
		"unknown_metric":    `has invalid keys: burrow.group.lag`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadConfig(t, name)
			require.ErrorContains(t, err, want)
		})
	}
}
