package burrowreceiver

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/confignet"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/confmap"

	"github.com/lowess/karrot/receiver/burrowreceiver/internal/burrow"
	"github.com/lowess/karrot/receiver/burrowreceiver/internal/metadata"
)

const (
	defaultEndpoint    = "localhost:5000"
	defaultPath        = "/burrow"
	defaultPagePath    = "/"
	defaultInterval    = time.Second
	defaultExpireAfter = 5 * time.Minute

	// Burrow needs one or two, a proxy in front of several Burrows some tens.
	defaultMaxConnections = 256
	// A notification that lists 10,000 partitions has about 3.5 MB.
	defaultMaxRequestBodySize = 8 << 20
	// confighttpMaxBody is what confighttp takes 0 for.
	confighttpMaxBody = 20 << 20
	// Burrow gives up after 5 s by default.
	defaultReadTimeout = 10 * time.Second
	// Burrow keeps idle connections for ever and loses the notification that it sends into one which is being
	// closed. Its intervals are a minute or some, so the limit must not be near them.
	defaultIdleTimeout = 15 * time.Minute

	defaultAPIEndpoint        = "http://localhost:8000"
	defaultAPITimeout         = 10 * time.Second
	defaultCollectionInterval = 30 * time.Second
	defaultOffsetsInterval    = 10 * time.Second
	defaultConcurrentRequests = 10
	// A group of 50,000 partitions has about 17 MB.
	defaultMaxAnswerSize = 32 << 20
	// internalTopics are those of Kafka itself and of tools that stay by its habit.
	internalTopics = "^__"
	// maxAnswerBytes bounds what answers under way hold, together and with what is made of them. It is apart from what
	// notifications hold, so that a broken Burrow API is not in their way.
	maxAnswerBytes = 64 << 20

	// minInterval catches a duration without unit, which is read as nanoseconds.
	minInterval = 10 * time.Millisecond
)

// Config of the receiver.
type Config struct {
	// Webhook is the HTTP server that Burrow calls. It is on unless `enabled: false` is written.
	Webhook configoptional.Optional[WebhookConfig] `mapstructure:"webhook"`

	// API is Burrow's own HTTP API, which is polled for what notifications do not tell. It is off unless it is written,
	// and if its endpoint is empty.
	API configoptional.Optional[APIConfig] `mapstructure:"api"`

	// Page is what people look at, on the webhook's server. It is on unless `enabled: false` is written.
	Page PageConfig `mapstructure:"page"`

	// Interval is how often changed groups are handed to the pipelines.
	Interval time.Duration `mapstructure:"interval"`
	// ExpireAfter is how long a group is kept after its last notification; then its series end.
	ExpireAfter time.Duration `mapstructure:"expire_after"`
	// MaxGroups bounds the groups held. Notifications of further groups are answered 503. The default is what the
	// memory at hand can carry.
	MaxGroups int `mapstructure:"max_groups"`
	// MaxPartitions bounds the listed partitions held over all groups. The default is as for MaxGroups.
	MaxPartitions int `mapstructure:"max_partitions"`

	// Clusters and Groups choose what is taken, from notifications and from the API. Notifications of clusters and
	// groups that are left out are answered and ignored.
	Clusters FilterConfig `mapstructure:"clusters"`
	Groups   FilterConfig `mapstructure:"groups"`

	// LogIncidents says that the log has a line when an incident opens, changes its severity or ends.
	LogIncidents bool `mapstructure:"log_incidents"`

	// Storage names a storage extension in which the table survives a restart. Without it nothing is written.
	Storage *component.ID `mapstructure:"storage"`

	// MetricsBuilderConfig switches single metrics on and off.
	metadata.MetricsBuilderConfig `mapstructure:",squash"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// WebhookConfig is the HTTP server and where on it notifications arrive.
type WebhookConfig struct {
	Server confighttp.ServerConfig `mapstructure:",squash"`
	// Path of the notifications, as in the url-open and url-close of Burrow's notifier.
	Path string `mapstructure:"path"`
	// MaxConnections bounds the connections at one moment, and with them the requests. A new one takes the place of
	// the one that is missed least.
	MaxConnections int `mapstructure:"max_connections"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// PageConfig is where on the webhook's server the page stands.
type PageConfig struct {
	Enabled bool `mapstructure:"enabled"`
	// Path of the page; everything below it that is asked for by GET is the page's.
	Path string `mapstructure:"path"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// APIConfig is how Burrow's API is polled, and for what.
type APIConfig struct {
	Client confighttp.ClientConfig `mapstructure:",squash"`
	// CollectionInterval is the time from one poll to the next.
	CollectionInterval time.Duration `mapstructure:"collection_interval"`
	// OffsetsInterval is the time after which the heads of all topics are asked for again, for time lags, if Burrow was not seen to read
	// them anew before.
	OffsetsInterval time.Duration `mapstructure:"offsets_interval"`
	// InitialDelay is the time from the start to the first poll.
	InitialDelay time.Duration `mapstructure:"initial_delay"`
	// MaxConcurrentRequests bounds the requests, and with them the connections, at one moment.
	MaxConcurrentRequests int `mapstructure:"max_concurrent_requests"`
	// MaxAnswerSize bounds an answer, in bytes.
	MaxAnswerSize int64 `mapstructure:"max_answer_size"`

	// Topics chooses those whose heads are asked for.
	Topics FilterConfig `mapstructure:"topics"`

	// MovedClusters and MovedGroups are where the filters of the receiver stood once.
	MovedClusters any `mapstructure:"clusters"`
	MovedGroups   any `mapstructure:"groups"`

	// prevent unkeyed literal initialization
	_ struct{}
}

var (
	_ confmap.Unmarshaler = (*Config)(nil)
	_ confmap.Validator   = (*APIConfig)(nil)
	_ confmap.Validator   = (*Config)(nil)
	_ confmap.Validator   = (*PageConfig)(nil)
	_ confmap.Validator   = (*WebhookConfig)(nil)
)

// Unmarshal reads the configuration. An empty api.endpoint turns polling off, so that a variable can turn it on. Keys
// that have moved are kept for Validate to name.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	if err := conf.Unmarshal(c); err != nil {
		return err
	}
	if api := c.API.Get(); c.API.HasValue() && api.Client.Endpoint == "" && api.MovedClusters == nil && api.MovedGroups == nil {
		c.API = configoptional.None[APIConfig]()
	}
	return nil
}

func createDefaultConfig() component.Config {
	server := confighttp.NewDefaultServerConfig()
	server.NetAddr.Endpoint = defaultEndpoint
	server.MaxRequestBodySize = defaultMaxRequestBodySize
	server.ReadTimeout = defaultReadTimeout
	server.ReadHeaderTimeout = defaultReadTimeout
	server.IdleTimeout = defaultIdleTimeout
	// Burrow never compresses, and what a few bytes unpack to is known too late.
	server.CompressionAlgorithms = []string{""}
	client := confighttp.NewDefaultClientConfig()
	client.Endpoint = defaultAPIEndpoint
	client.Timeout = defaultAPITimeout
	maxGroups, maxPartitions := deriveLimits(availableMemory())
	return &Config{
		API: configoptional.Default(APIConfig{
			Client:                client,
			CollectionInterval:    defaultCollectionInterval,
			OffsetsInterval:       defaultOffsetsInterval,
			InitialDelay:          time.Second,
			MaxConcurrentRequests: defaultConcurrentRequests,
			MaxAnswerSize:         defaultMaxAnswerSize,
			Topics:                FilterConfig{Exclude: []string{internalTopics}},
		}),
		Webhook:              configoptional.Some(WebhookConfig{Server: server, Path: defaultPath, MaxConnections: defaultMaxConnections}),
		Page:                 PageConfig{Enabled: true, Path: defaultPagePath},
		Interval:             defaultInterval,
		ExpireAfter:          defaultExpireAfter,
		MaxGroups:            maxGroups,
		MaxPartitions:        maxPartitions,
		MetricsBuilderConfig: metadata.DefaultMetricsBuilderConfig(),
	}
}

// Validate says of every wrong field what would be right.
func (c *Config) Validate() error {
	var errs []error
	if !c.Webhook.HasValue() && !c.API.HasValue() {
		errs = append(errs, errors.New("webhook or api (with an endpoint) must be enabled: nothing else tells the receiver of groups"))
	}
	if c.API.HasValue() && c.ExpireAfter <= 2*c.API.Get().CollectionInterval {
		errs = append(errs, fmt.Errorf("expire_after must be longer than twice api.collection_interval (%s), so that one poll can fail, written with its unit as in 10m, got %q", c.API.Get().CollectionInterval, c.ExpireAfter))
	}
	if c.Interval < minInterval {
		errs = append(errs, fmt.Errorf("interval must be at least %s, written with its unit as in 1s, got %q", minInterval, c.Interval))
	}
	if c.ExpireAfter <= c.Interval {
		errs = append(errs, fmt.Errorf("expire_after must be longer than interval (%s) and than the time between two notifications of a group, written with its unit as in 5m, got %q", c.Interval, c.ExpireAfter))
	}
	if c.MaxGroups < 1 {
		errs = append(errs, fmt.Errorf("max_groups must be at least 1, got %d", c.MaxGroups))
	}
	if c.MaxPartitions < 1 {
		errs = append(errs, fmt.Errorf("max_partitions must be at least 1, got %d", c.MaxPartitions))
	}
	_, err := c.filters()
	return errors.Join(append(errs, err)...)
}

// Validate says of every wrong field what would be right.
func (c *WebhookConfig) Validate() error {
	var errs []error
	if err := validEndpoint(c.Server.NetAddr); err != nil {
		errs = append(errs, err)
	}
	if !strings.HasPrefix(c.Path, "/") {
		errs = append(errs, fmt.Errorf("webhook.path must begin with /, got %q", c.Path))
	}
	if strings.ContainsAny(c.Path, "?#") {
		errs = append(errs, fmt.Errorf("webhook.path must be without query and fragment, got %q", c.Path))
	}
	if c.Server.MaxRequestBodySize < 0 {
		errs = append(errs, fmt.Errorf("webhook.max_request_body_size must not be negative, got %d", c.Server.MaxRequestBodySize))
	}
	if c.MaxConnections < 1 {
		errs = append(errs, fmt.Errorf("webhook.max_connections must be at least 1, got %d", c.MaxConnections))
	}
	if c.Server.CORS.HasValue() {
		errs = append(errs, errors.New("webhook.cors is not supported: notifications come from Burrow, and what a browser sends for another site is refused"))
	}
	return errors.Join(errs...)
}

// Validate says of every wrong field what would be right.
func (c *PageConfig) Validate() error {
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "?#%") || path.Clean(c.Path) != strings.TrimSuffix(c.Path, "/") && c.Path != "/" {
		return fmt.Errorf("page.path must be a plain path such as / or /karrot/, got %q", c.Path)
	}
	return nil
}

// Validate says of every wrong field what would be right.
func (c *APIConfig) Validate() error {
	var errs []error
	if _, err := burrow.ParseEndpoint(c.Client.Endpoint); err != nil {
		errs = append(errs, fmt.Errorf("api.%w", err))
	}
	if c.CollectionInterval < time.Second {
		errs = append(errs, fmt.Errorf("api.collection_interval must be at least 1s, written with its unit, got %q", c.CollectionInterval))
	}
	if c.OffsetsInterval < time.Second {
		errs = append(errs, fmt.Errorf("api.offsets_interval must be at least 1s, written with its unit, got %q", c.OffsetsInterval))
	}
	if c.InitialDelay < 0 {
		errs = append(errs, fmt.Errorf("api.initial_delay must not be negative, got %q", c.InitialDelay))
	}
	if c.Client.Timeout < time.Millisecond {
		errs = append(errs, fmt.Errorf("api.timeout must be at least 1ms, written with its unit as in 10s, got %q", c.Client.Timeout))
	}
	if c.MaxConcurrentRequests < 1 {
		errs = append(errs, fmt.Errorf("api.max_concurrent_requests must be at least 1, got %d", c.MaxConcurrentRequests))
	}
	if c.MaxAnswerSize < 1 {
		errs = append(errs, fmt.Errorf("api.max_answer_size must be at least 1, got %d", c.MaxAnswerSize))
	}
	if c.MovedClusters != nil {
		errs = append(errs, errors.New("api.clusters must be written as clusters, one level up in the receiver: it holds for notifications too"))
	}
	if c.MovedGroups != nil {
		errs = append(errs, errors.New("api.groups must be written as groups, one level up in the receiver: it holds for notifications too"))
	}
	return errors.Join(errs...)
}

// unpacked is what a decompressor is taken to hold, beside the body that it unpacks to, which is paid as it arrives;
// 0 if no compression is accepted.
func (c *WebhookConfig) unpacked() int64 {
	for _, algorithm := range c.Server.CompressionAlgorithms {
		if algorithm != "" {
			return cmp.Or(c.Server.MaxRequestBodySize, confighttpMaxBody)
		}
	}
	return 0
}

func validEndpoint(addr confignet.AddrConfig) error {
	if addr.Endpoint == "" {
		return fmt.Errorf("webhook.endpoint must be set, for example to %s", defaultEndpoint)
	}
	if addr.Transport == confignet.TransportTypeUnix {
		return nil
	}
	if strings.HasPrefix(addr.Endpoint, "unix:") || strings.HasPrefix(addr.Endpoint, "/") {
		return fmt.Errorf("webhook.endpoint must be a host and a port as in %s, or beside transport: unix the path alone, got %q", defaultEndpoint, addr.Endpoint)
	}
	if _, _, err := net.SplitHostPort(addr.Endpoint); err != nil {
		return fmt.Errorf("webhook.endpoint must be a host and a port as in %s, got %q", defaultEndpoint, addr.Endpoint)
	}
	return nil
}
