// Package retryableconnector hands metrics on, and turns every error that comes back into one that can be repeated.
//
// An exporter calls an error permanent when it thinks that the same data will never be taken, and whoever has a queue then
// drops the data. awsemf thinks so of throttling, and of a CloudWatch that fails with 500. Between such an exporter and a
// queue with a limit of time this connector leaves the decision to the queue.
package retryableconnector

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// Config has nothing to set.
type Config struct{}

// NewFactory returns the factory of the connector "retryable".
func NewFactory() connector.Factory {
	return connector.NewFactory(component.MustNewType("retryable"),
		func() component.Config { return &Config{} },
		connector.WithMetricsToMetrics(newRetryable, component.StabilityLevelAlpha))
}

func newRetryable(_ context.Context, _ connector.Settings, _ component.Config, next consumer.Metrics) (connector.Metrics, error) {
	return &retryable{next: next}, nil
}

type retryable struct {
	component.StartFunc
	component.ShutdownFunc
	next consumer.Metrics
}

// Capabilities says that it changes nothing.
func (*retryable) Capabilities() consumer.Capabilities { return consumer.Capabilities{} }

// ConsumeMetrics returns the text of an error, and nothing of what makes it permanent.
func (r *retryable) ConsumeMetrics(ctx context.Context, metrics pmetric.Metrics) error {
	if err := r.next.ConsumeMetrics(ctx, metrics); err != nil {
		return errors.New(err.Error())
	}
	return nil
}
