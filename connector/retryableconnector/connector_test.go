package retryableconnector

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/connector"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

func TestRetryable(t *testing.T) {
	for name, refusal := range map[string]error{
		"taken":             nil,
		"plain":             errors.New("away"),
		"permanent":         consumererror.NewPermanent(errors.New("throttled")),
		"permanent, within": fmt.Errorf("a push: %w", consumererror.NewPermanent(errors.New("throttled"))),
	} {
		t.Run(name, func(t *testing.T) {
			var got []pmetric.Metrics
			next, err := consumer.NewMetrics(func(_ context.Context, metrics pmetric.Metrics) error {
				got = append(got, metrics)
				return refusal
			})
			require.NoError(t, err)
			factory := NewFactory()
			c, err := factory.CreateMetricsToMetrics(t.Context(), connector.Settings{ID: component.MustNewID("retryable")}, factory.CreateDefaultConfig(), next)
			require.NoError(t, err)
			require.NoError(t, c.Start(t.Context(), nil))
			assert.False(t, c.Capabilities().MutatesData)
			sent := pmetric.NewMetrics()
			sent.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetName("m")
			err = c.ConsumeMetrics(t.Context(), sent)
			require.Equal(t, []pmetric.Metrics{sent}, got)
			assert.False(t, consumererror.IsPermanent(err))
			if refusal == nil {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, refusal.Error())
			}
			require.NoError(t, c.Shutdown(t.Context()))
		})
	}
}
