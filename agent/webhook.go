package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/elected"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

const (
	// webhookPause is how long the agent waits before it tries again to listen
	// for the webhook. Somebody else may have the port.
	webhookPause = 30 * time.Second
	// webhookTimeout bounds reading a question and writing its answer. The API
	// server waits less, see the chart's webhook configurations.
	webhookTimeout = 30 * time.Second
)

// rules are the settings that pools are judged by.
func (a *Agent) rules() admission.Rules {
	return admission.Rules{NoIPv4: !a.config.EnableIPv4, NoIPv6: !a.config.EnableIPv6}
}

// webhook judges objects when they are applied, until ctx ends. No pod needs
// it: whatever keeps it from its work is logged, and the agent goes on.
func (a *Agent) webhook(ctx context.Context) error {
	if a.options.WebhookAddress == "" {
		return nil
	}
	keeper, err := admission.NewKeeper(a.kube, a.options.Namespace)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		keeper.Informer.RunWithContext(ctx)
	}()
	defer func() { <-done }()
	for ctx.Err() == nil {
		err := a.serveWebhook(ctx, keeper)
		if err == nil {
			continue
		}
		a.log.Warn("the webhook is not served on this node", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(webhookPause):
		}
	}
	return nil
}

func (a *Agent) serveWebhook(ctx context.Context, keeper *admission.Keeper) error {
	l, err := net.Listen("tcp", a.options.WebhookAddress)
	if err != nil {
		return fmt.Errorf("listen for the webhook: %w", err)
	}
	handler := admission.NewHandler(admission.Config{
		CRDs: a.clients, Metadata: a.metadata, Rules: a.rules(), Log: a.log,
		Render: func(smc *v2beta1.SpiderMultusConfig) error {
			_, err := elected.Render(smc)
			return err
		},
	})
	return runServer(ctx, &http.Server{
		Handler: handler, ReadHeaderTimeout: drainTimeout, ReadTimeout: webhookTimeout, WriteTimeout: webhookTimeout,
		// Handshakes that fail: port scanners, and API servers that do not
		// trust a new certificate yet.
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}, keeper.Listen(l))
}
