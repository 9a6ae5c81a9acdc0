package admission

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-ipam/holdfast/agent/watch"
)

// Keeper keeps the certificate to serve with, by a watch of the Secret that the
// elected agent writes. Its informer must be run.
type Keeper struct {
	// Informer watches the one Secret.
	Informer watch.Informer[*corev1.Secret]
	pair     atomic.Pointer[tls.Certificate]
}

// NewKeeper returns the keeper of the Secret in the namespace.
func NewKeeper(client kubernetes.Interface, namespace string) (*Keeper, error) {
	k := &Keeper{Informer: watch.New(client.CoreV1().Secrets(namespace), &corev1.Secret{}, watch.Options[*corev1.Secret]{Narrow: Named(SecretName)})}
	// A Secret that is gone takes nothing from who serves with it.
	return k, k.Informer.On(func(_, is *corev1.Secret) { k.take(is) }, func(*corev1.Secret) {})
}

// Named narrows lists and watches to one object. RBAC allows these to who may
// list and watch the object by its name.
func Named(name string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
}

// take goes over to the certificate in the Secret. One that is damaged is
// passed over: the elected agent is about to replace it.
func (k *Keeper) take(secret *corev1.Secret) {
	c := CertificateOf(secret.Data)
	if pair, err := tls.X509KeyPair(c.Certificate, c.Key); err == nil {
		k.pair.Store(&pair)
	}
}

// Listen wraps a listener so that it speaks TLS (1.2 or later) with the
// certificate of the moment. Before there is one, no handshake succeeds.
func (k *Keeper) Listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair := k.pair.Load()
			if pair == nil {
				return nil, fmt.Errorf("serve the webhook: %w", errNotYet)
			}
			return pair, nil
		},
	})
}
