package elected

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-ipam/holdfast/agent/admission"
	"github.com/holdfast-ipam/holdfast/agent/watch"
)

// certificatePeriod is how often the end of the certificate is looked at.
const certificatePeriod = 10 * time.Minute

// certificate keeps the certificate of the webhook: in a Secret, from which
// every agent takes it, and its authority in the webhook configurations, by
// which API servers trust it. The chart installs all three, empty, and an
// upgrade of the chart leaves alone what is written here, because the chart
// does not name these fields.
type certificate struct {
	config     *Config
	secret     watch.Informer[*corev1.Secret]
	validating watch.Informer[*admissionregistrationv1.ValidatingWebhookConfiguration]
	mutating   watch.Informer[*admissionregistrationv1.MutatingWebhookConfiguration]
	queue      queue[string]
	log        *slog.Logger
}

// keepCertificate is the duty of making and renewing the certificate. Its
// watches say only when to look; what is looked at is read anew.
func (d *Duties) keepCertificate(ctx context.Context, _ *watches, log *slog.Logger) {
	if !d.config.Webhook {
		return
	}
	registration := d.config.Kubernetes.AdmissionregistrationV1()
	c := &certificate{
		config: &d.config,
		secret: watch.New(d.config.Kubernetes.CoreV1().Secrets(d.config.Namespace), &corev1.Secret{},
			watch.Options[*corev1.Secret]{Narrow: admission.Named(admission.SecretName), Resync: certificatePeriod}),
		validating: watch.New(registration.ValidatingWebhookConfigurations(), &admissionregistrationv1.ValidatingWebhookConfiguration{},
			watch.Options[*admissionregistrationv1.ValidatingWebhookConfiguration]{Narrow: admission.Named(admission.ConfigurationName), Resync: certificatePeriod}),
		mutating: watch.New(registration.MutatingWebhookConfigurations(), &admissionregistrationv1.MutatingWebhookConfiguration{},
			watch.Options[*admissionregistrationv1.MutatingWebhookConfiguration]{Narrow: admission.Named(admission.ConfigurationName), Resync: certificatePeriod}),
		queue: newQueue[string]("certificate"),
		log:   log,
	}
	if err := c.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.secret.RunWithContext(ctx) })
	wg.Go(func() { c.validating.RunWithContext(ctx) })
	wg.Go(func() { c.mutating.RunWithContext(ctx) })
	c.queue.Add(admission.SecretName)
	c.queue.work(ctx, 1, log, c.do)
}

func (c *certificate) watch() error {
	look := func() { c.queue.Add(admission.SecretName) }
	err := c.secret.On(func(_, _ *corev1.Secret) { look() }, func(*corev1.Secret) { look() })
	if err != nil {
		return err
	}
	err = c.validating.On(
		func(_, _ *admissionregistrationv1.ValidatingWebhookConfiguration) { look() },
		func(*admissionregistrationv1.ValidatingWebhookConfiguration) {})
	if err != nil {
		return err
	}
	return c.mutating.On(
		func(_, _ *admissionregistrationv1.MutatingWebhookConfiguration) { look() },
		func(*admissionregistrationv1.MutatingWebhookConfiguration) {})
}

// do renews the certificate if need be. API servers learn of the new authority
// first, so that they trust an agent with the new certificate as well as one
// with that before it; a failure in between leaves them one authority more.
func (c *certificate) do(ctx context.Context, name string) (again bool, err error) {
	secrets := c.config.Kubernetes.CoreV1().Secrets(c.config.Namespace)
	secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return true, fmt.Errorf("read Secret %s/%s (the chart installs it: helm upgrade brings it back): %w", c.config.Namespace, name, err)
	}
	now, host := time.Now(), admission.Host(c.config.Namespace)
	is := admission.CertificateOf(secret.Data)
	why := is.Check(now, host)
	if why == nil {
		return c.trust(ctx, is.Authorities)
	}
	next, err := admission.NewCertificate(now, is, host)
	if err != nil {
		return true, err
	}
	if again, err := c.trust(ctx, next.Authorities); again || err != nil {
		return again, err
	}
	secret.Data = next.Data()
	if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
		return true, fmt.Errorf("write Secret %s/%s: %w", c.config.Namespace, name, guarded(err))
	}
	c.log.Info("the webhook has a new certificate", "reason", why.Error())
	return false, nil
}

// trust writes the authorities into both webhook configurations. One that is
// not there needs none.
func (c *certificate) trust(ctx context.Context, authorities []byte) (again bool, err error) {
	registration := c.config.Kubernetes.AdmissionregistrationV1()
	validating, err := registration.ValidatingWebhookConfigurations().Get(ctx, admission.ConfigurationName, metav1.GetOptions{})
	if err == nil {
		was := validating.DeepCopy()
		for i := range validating.Webhooks {
			trusted(&validating.Webhooks[i].ClientConfig, authorities)
		}
		if !equality.Semantic.DeepEqual(was.Webhooks, validating.Webhooks) {
			_, err = registration.ValidatingWebhookConfigurations().Update(ctx, validating, metav1.UpdateOptions{})
		}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return true, fmt.Errorf("write the authority into ValidatingWebhookConfiguration %s: %w", admission.ConfigurationName, guarded(err))
	}
	mutating, err := registration.MutatingWebhookConfigurations().Get(ctx, admission.ConfigurationName, metav1.GetOptions{})
	if err == nil {
		was := mutating.DeepCopy()
		for i := range mutating.Webhooks {
			trusted(&mutating.Webhooks[i].ClientConfig, authorities)
		}
		if !equality.Semantic.DeepEqual(was.Webhooks, mutating.Webhooks) {
			_, err = registration.MutatingWebhookConfigurations().Update(ctx, mutating, metav1.UpdateOptions{})
		}
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return true, fmt.Errorf("write the authority into MutatingWebhookConfiguration %s: %w", admission.ConfigurationName, guarded(err))
	}
	return false, nil
}

func trusted(client *admissionregistrationv1.WebhookClientConfig, authorities []byte) {
	if !bytes.Equal(client.CABundle, authorities) {
		client.CABundle = bytes.Clone(authorities)
	}
}
