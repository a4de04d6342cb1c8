package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/healthcheckextension"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"

	"github.com/lowess/karrot/internal/webserver"
)

// slowHealth is more than an answer about health takes.
const slowHealth = time.Second

var healthType = component.MustNewType("health_check")

// boundHealth puts the limit of connections on the health check. Its second version, behind a feature gate, stays as it is.
func boundHealth(health extension.Factory) extension.Factory {
	return extension.NewFactory(health.Type(), health.CreateDefaultConfig,
		func(ctx context.Context, set extension.Settings, cfg component.Config) (extension.Extension, error) {
			theirs, err := health.Create(ctx, set, cfg)
			configured := cfg.(*healthcheckextension.Config)
			if err != nil || configured.UseV2 {
				return theirs, err
			}
			return &boundedHealth{cfg: configured, port: port{set.ID, configured.ServerConfig, set.TelemetrySettings, slowHealth}}, nil
		}, health.Stability())
}

// boundedHealth says what the extension says, on a server of our own: the extension's has no limit of connections, and can't be given one.
type boundedHealth struct {
	cfg  *healthcheckextension.Config
	port port
	open *openPort
	// since is when all parts had started; nil while they do not run.
	since atomic.Pointer[time.Time]
}

var _ extensioncapabilities.PipelineWatcher = (*boundedHealth)(nil)

func (h *boundedHealth) Start(ctx context.Context, host component.Host) (err error) {
	mux := http.NewServeMux()
	mux.HandleFunc(h.cfg.Path, h.answer)
	h.open, err = h.port.open(ctx, host, mux)
	return err
}

func (h *boundedHealth) Shutdown(ctx context.Context) error {
	h.open.close(ctx, 0)
	return nil
}

func (h *boundedHealth) Ready() error {
	now := time.Now()
	h.since.Store(&now)
	return nil
}

func (h *boundedHealth) NotReady() error {
	h.since.Store(nil)
	return nil
}

func (h *boundedHealth) answer(w http.ResponseWriter, r *http.Request) {
	webserver.Keep(r.Context())
	status, healthy := http.StatusServiceUnavailable, false
	health := struct {
		Status  string    `json:"status"`
		UpSince time.Time `json:"upSince"`
		Uptime  string    `json:"uptime"`
	}{Status: "Server not available"}
	if since := h.since.Load(); since != nil {
		status, healthy = http.StatusOK, true
		health.Status, health.UpSince, health.Uptime = "Server available", *since, time.Since(*since).String()
	}
	if body := h.cfg.ResponseBody; body != nil {
		text := body.Unhealthy
		if healthy {
			text = body.Healthy
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text)) // who has gone needs no answer
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	text, _ := json.Marshal(health) // three fields that can always be written
	_, _ = w.Write(text)
}
