package elected

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-ipam/holdfast/agent/watch"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
	"github.com/holdfast-ipam/holdfast/lease"
)

const (
	kindMultusConfig = "SpiderMultusConfig"
	// indexWants finds SpiderMultusConfigs by the NetworkAttachmentDefinition,
	// namespace/name, that they want to be rendered into.
	indexWants = "wants"
	// indexOwner finds NetworkAttachmentDefinitions by the UID of the
	// SpiderMultusConfig that they were rendered from.
	indexOwner = "owner"
	// installedPeriod is how often a cluster without Multus is asked whether
	// it has one by now.
	installedPeriod = 5 * time.Second
)

// nadClient is the typed client for NetworkAttachmentDefinition.
type nadClient = gentype.ClientWithList[*nadv1.NetworkAttachmentDefinition, *nadv1.NetworkAttachmentDefinitionList]

// Networks makes clients for NetworkAttachmentDefinition (Kubernetes Network
// Custom Resource Definition De-facto Standard, version 1).
type Networks struct {
	rest       rest.Interface
	parameters runtime.ParameterCodec
}

// NewNetworks returns clients that talk to the API server of config through
// httpClient. Whether the API server knows the kind shows when they are used.
func NewNetworks(config *rest.Config, httpClient *http.Client) (*Networks, error) {
	scheme := runtime.NewScheme()
	if err := nadv1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make a client for network-attachment-definitions: %w", err)
	}
	c := rest.CopyConfig(config)
	c.APIPath = "/apis"
	c.GroupVersion = &nadv1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// Custom resources speak JSON only; config may prefer protobuf.
	c.ContentType = runtime.ContentTypeJSON
	c.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := rest.RESTClientForConfigAndClient(c, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for network-attachment-definitions: %w", err)
	}
	return &Networks{rest: client, parameters: runtime.NewParameterCodec(scheme)}, nil
}

func (n *Networks) in(namespace string) *nadClient {
	return gentype.NewClientWithList("network-attachment-definitions", n.rest, n.parameters, namespace,
		func() *nadv1.NetworkAttachmentDefinition { return new(nadv1.NetworkAttachmentDefinition) },
		func() *nadv1.NetworkAttachmentDefinitionList { return new(nadv1.NetworkAttachmentDefinitionList) })
}

// multus keeps a NetworkAttachmentDefinition for each SpiderMultusConfig.
type multus struct {
	networks    *Networks
	events      typedcorev1.EventsGetter
	configs     watch.Informer[*v2beta1.SpiderMultusConfig]
	definitions watch.Informer[*nadv1.NetworkAttachmentDefinition]
	queue       queue[string]
	log         *slog.Logger
}

// renderNetworks is the duty of rendering SpiderMultusConfigs. Without the
// kind NetworkAttachmentDefinition it waits, quietly, until somebody installs
// it.
func (d *Duties) renderNetworks(ctx context.Context, _ *watches, log *slog.Logger) {
	if d.config.Networks == nil {
		return
	}
	m := &multus{
		networks: d.config.Networks,
		events:   d.config.Kubernetes.CoreV1(),
		configs: newCache(d.config.CRDs.MultusConfigs(metav1.NamespaceAll), &v2beta1.SpiderMultusConfig{}, cache.TypedIndexers[*v2beta1.SpiderMultusConfig]{
			indexWants: func(smc *v2beta1.SpiderMultusConfig) ([]string, error) { return []string{wanted(smc)}, nil },
		}),
		definitions: newCache(d.config.Networks.in(metav1.NamespaceAll), &nadv1.NetworkAttachmentDefinition{}, cache.TypedIndexers[*nadv1.NetworkAttachmentDefinition]{
			indexOwner: owners,
		}),
		queue: newQueue[string]("networks"),
		log:   log,
	}
	if !m.installed(ctx) {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.configs.RunWithContext(ctx) })
	wg.Go(func() { m.definitions.RunWithContext(ctx) })
	if !watch.Synced(ctx, m.configs, m.definitions) {
		return
	}
	if err := m.watch(); err != nil {
		log.Error("cannot begin", "err", err)
		return
	}
	m.queue.work(ctx, 1, log, m.do)
}

// installed waits until there are NetworkAttachmentDefinitions to be listed,
// and returns false if ctx ended first. It says once what it is waiting for.
func (m *multus) installed(ctx context.Context) bool {
	ticker := time.NewTicker(installedPeriod)
	defer ticker.Stop()
	for told := false; ; told = true {
		_, err := m.networks.in(metav1.NamespaceAll).List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			return true
		}
		if !told && ctx.Err() == nil {
			m.log.Info("there are no NetworkAttachmentDefinitions in this cluster: SpiderMultusConfigs are rendered once Multus is installed", "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// watch asks for a look at a SpiderMultusConfig when it changes, when somebody
// changes or deletes what was rendered from it, and when the name it waits for
// may have become free.
func (m *multus) watch() error {
	err := m.configs.On(
		func(was, is *v2beta1.SpiderMultusConfig) {
			m.queue.Add(is.Namespace + "/" + is.Name)
			if was != nil && wanted(was) != wanted(is) {
				m.lookAt(wanted(was))
			}
		},
		func(was *v2beta1.SpiderMultusConfig) { m.lookAt(wanted(was)) })
	if err != nil {
		return err
	}
	touched := func(nad *nadv1.NetworkAttachmentDefinition) {
		if nad == nil {
			return
		}
		m.lookAt(nad.Namespace + "/" + nad.Name)
		if owner := configOf(nad); owner != nil {
			m.queue.Add(nad.Namespace + "/" + owner.Name)
		}
	}
	return m.definitions.On(
		func(was, is *nadv1.NetworkAttachmentDefinition) {
			touched(was)
			touched(is)
		}, touched)
}

// lookAt asks for a look at all that want the definition, namespace/name.
func (m *multus) lookAt(definition string) {
	for _, smc := range m.configs.By(indexWants, definition) {
		m.queue.Add(smc.Namespace + "/" + smc.Name)
	}
}

// wanted is the definition, namespace/name, of a SpiderMultusConfig.
func wanted(smc *v2beta1.SpiderMultusConfig) string { return smc.Namespace + "/" + nadName(smc) }

// owners are the keys of indexOwner.
func owners(nad *nadv1.NetworkAttachmentDefinition) ([]string, error) {
	if owner := configOf(nad); owner != nil {
		return []string{string(owner.UID)}, nil
	}
	return nil, nil
}

// configOf returns the reference to the SpiderMultusConfig that a definition
// was rendered from.
func configOf(nad *nadv1.NetworkAttachmentDefinition) *metav1.OwnerReference {
	owner := metav1.GetControllerOf(nad)
	if owner == nil || owner.Kind != kindMultusConfig || owner.APIVersion != v2beta1.GroupVersion().String() {
		return nil
	}
	return owner
}

// do brings the definition of one SpiderMultusConfig in line with it. The
// definition of one that is gone goes with its owner reference, and one whose
// text is wrong keeps what was rendered before.
func (m *multus) do(ctx context.Context, key string) (again bool, err error) {
	smc, ok := m.configs.Get(key)
	if !ok || smc.DeletionTimestamp != nil {
		return false, nil
	}
	want, err := Render(smc)
	if err != nil {
		return false, m.complain(ctx, smc, fmt.Sprintf("cannot be rendered: %s", err))
	}
	nad, exists := m.definitions.Get(smc.Namespace + "/" + want.Name)
	if !exists {
		err = m.create(ctx, smc, want)
	} else if reason := m.taken(smc, nad); reason != "" {
		return false, m.complain(ctx, smc, reason)
	} else {
		err = m.repair(ctx, smc, want, nad)
	}
	if err != nil {
		return true, err
	}
	return m.removeOthers(ctx, smc, want.Name)
}

func (m *multus) create(ctx context.Context, smc *v2beta1.SpiderMultusConfig, want Definition) error {
	nad := &nadv1.NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{Namespace: smc.Namespace, Name: want.Name}}
	apply(smc, want, nad)
	if _, err := m.networks.in(smc.Namespace).Create(ctx, nad, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create NetworkAttachmentDefinition %s/%s: %w", smc.Namespace, want.Name, guarded(err))
	}
	m.log.Info("rendered", "network", smc.Namespace+"/"+want.Name)
	return nil
}

// taken tells who else has the definition, and what to do about it. One that
// nobody has is taken over, as is one of a SpiderMultusConfig that is gone.
func (m *multus) taken(smc *v2beta1.SpiderMultusConfig, nad *nadv1.NetworkAttachmentDefinition) (reason string) {
	owner := metav1.GetControllerOf(nad)
	if owner == nil || owner.UID == smc.UID {
		return ""
	}
	advice := fmt.Sprintf("give this one another name with the annotation %s, or delete the other", annotationNADName)
	if configOf(nad) == nil {
		return fmt.Sprintf("the NetworkAttachmentDefinition %s belongs to %s %s: %s", nad.Name, owner.Kind, owner.Name, advice)
	}
	other, ok := m.configs.Get(smc.Namespace + "/" + owner.Name)
	if !ok || other.UID != owner.UID {
		return ""
	}
	return fmt.Sprintf("the NetworkAttachmentDefinition %s is already rendered from SpiderMultusConfig %s: %s", nad.Name, owner.Name, advice)
}

func (m *multus) repair(ctx context.Context, smc *v2beta1.SpiderMultusConfig, want Definition, nad *nadv1.NetworkAttachmentDefinition) error {
	repaired := nad.DeepCopy()
	apply(smc, want, repaired)
	if equality.Semantic.DeepEqual(nad, repaired) {
		return nil
	}
	if _, err := m.networks.in(smc.Namespace).Update(ctx, repaired, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update NetworkAttachmentDefinition %s/%s: %w", smc.Namespace, want.Name, guarded(err))
	}
	m.log.Info("rendered again", "network", smc.Namespace+"/"+want.Name)
	return nil
}

// removeOthers deletes what was rendered from the SpiderMultusConfig when it
// wanted another name.
func (m *multus) removeOthers(ctx context.Context, smc *v2beta1.SpiderMultusConfig, name string) (again bool, err error) {
	for _, nad := range m.definitions.By(indexOwner, string(smc.UID)) {
		if nad.Name == name || nad.Namespace != smc.Namespace {
			continue
		}
		err := m.networks.in(nad.Namespace).Delete(ctx, nad.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &nad.UID, ResourceVersion: &nad.ResourceVersion},
		})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return true, fmt.Errorf("delete NetworkAttachmentDefinition %s/%s: %w", nad.Namespace, nad.Name, guarded(err))
		}
		m.log.Info("removed: it has another name now", "network", nad.Namespace+"/"+nad.Name)
	}
	return false, nil
}

// apply makes nad what is wanted. It leaves labels and whatever else is not
// rendered as they are.
func apply(smc *v2beta1.SpiderMultusConfig, want Definition, nad *nadv1.NetworkAttachmentDefinition) {
	applied, ok := nad.Annotations[corev1.LastAppliedConfigAnnotation]
	nad.Annotations = maps.Clone(want.Annotations)
	if ok { // somebody applied it by hand before: kubectl's own note
		if nad.Annotations == nil {
			nad.Annotations = make(map[string]string)
		}
		nad.Annotations[corev1.LastAppliedConfigAnnotation] = applied
	}
	nad.OwnerReferences = []metav1.OwnerReference{
		*metav1.NewControllerRef(smc, v2beta1.GroupVersion().WithKind(kindMultusConfig)),
	}
	nad.Spec.Config = want.Config
}

// guarded marks the errors of a guarded write that reading again mends.
func guarded(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return fmt.Errorf("%w: %w", lease.ErrConflict, err)
	}
	return err
}
