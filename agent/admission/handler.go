package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"go4.org/netipx"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/metadata"

	"github.com/holdfast-ipam/holdfast/crds"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// The paths that the API server asks, as the chart's webhook configurations
// name them.
const (
	PathMutate   = "/mutate"
	PathValidate = "/validate"
)

const (
	// maxBody bounds a question: two versions of an object, each of at most
	// the 1.5 MiB that an API server stores.
	maxBody = 4 << 20
	// maxAtOnce is how many questions are answered at a time. The port is open
	// to whoever reaches the node, and an answer may cost several reads; an API
	// server asks a handful at a time.
	maxAtOnce = 8
)

// Config is what the answers need.
type Config struct {
	// CRDs are clients for the kinds of this project.
	CRDs *crds.Clients
	// Metadata reads whose a NetworkAttachmentDefinition is.
	Metadata metadata.Interface
	// Rules are the cluster's settings.
	Rules Rules
	// Render tells what cannot be rendered.
	Render Render
	// Log is where questions are written that could not be answered. Its keys:
	// kind, name, err.
	Log *slog.Logger
}

// Handler answers admission reviews. Make one with [NewHandler].
type Handler struct {
	config  Config
	records records
	turns   chan struct{}
}

// NewHandler returns the handler of [PathMutate] and [PathValidate]. A
// question it cannot answer, because the API server does, for example, gets an
// HTTP error; the failure policy of the webhook configuration decides then.
func NewHandler(c Config) http.Handler {
	h := &Handler{config: c, records: records{c.CRDs}, turns: make(chan struct{}, maxAtOnce)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+PathMutate, h.answer(mutate))
	mux.HandleFunc("POST "+PathValidate, h.answer(h.validate))
	return mux
}

// errUnreadable is that of a question which is none.
var errUnreadable = errors.New("want an AdmissionReview of admission.k8s.io/v1 with a request")

// answer takes a question from the wire and puts its answer there.
func (h *Handler) answer(judge func(context.Context, *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.turns <- struct{}{}:
			defer func() { <-h.turns }()
		case <-r.Context().Done():
			return
		}
		review, err := read(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		q := review.Request
		response, err := judge(r.Context(), q)
		if err != nil {
			h.config.Log.Warn("an object was not judged", "kind", q.Kind.Kind, "name", q.Namespace+"/"+q.Name, "err", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		response.UID = q.UID
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
		if err != nil {
			h.config.Log.Debug("the API server went away", "err", err)
		}
	}
}

func read(body io.Reader) (*admissionv1.AdmissionReview, error) {
	text, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(text, &review); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	if review.Request == nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" {
		return nil, errUnreadable
	}
	return &review, nil
}

// judged reports whether the rules know the object: one of ours, created or
// updated as a whole. Deleting is never judged, nor is a status.
func judged(q *admissionv1.AdmissionRequest) bool {
	return q.Resource.Group == v2beta1.GroupVersion().Group && q.SubResource == "" &&
		(q.Operation == admissionv1.Create || q.Operation == admissionv1.Update)
}

// mutate fills in what follows from the rest. It never refuses: an object
// that cannot be read is left to the schema.
func mutate(_ context.Context, q *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	response := &admissionv1.AdmissionResponse{Allowed: true}
	if !judged(q) {
		return response, nil
	}
	var operations []Operation
	switch q.Resource.Resource {
	case "spiderippools":
		if p, err := decode[v2beta1.SpiderIPPool](q.Object.Raw); err == nil {
			operations = DefaultPool(p)
		}
	case "spiderreservedips":
		if r, err := decode[v2beta1.SpiderReservedIP](q.Object.Raw); err == nil {
			operations = DefaultReservedIP(r)
		}
	}
	if len(operations) == 0 {
		return response, nil
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return nil, fmt.Errorf("fill in %s: %w", q.Name, err)
	}
	kind := admissionv1.PatchTypeJSONPatch
	response.Patch, response.PatchType = patch, &kind
	return response, nil
}

// validate judges an object that the schema has passed.
func (h *Handler) validate(ctx context.Context, q *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	if !judged(q) {
		return &admissionv1.AdmissionResponse{Allowed: true}, nil
	}
	var errs field.ErrorList
	var err error
	switch q.Resource.Resource {
	case "spiderippools":
		errs, err = judge(ctx, q, h.pool)
	case "spiderreservedips":
		errs, err = judge(ctx, q, reservedIP)
	case "spidermultusconfigs":
		errs, err = judge(ctx, q, h.network)
	}
	if err != nil {
		return nil, err
	}
	if len(errs) == 0 {
		return &admissionv1.AdmissionResponse{Allowed: true}, nil
	}
	status := apierrors.NewInvalid(schema.GroupKind{Group: q.Kind.Group, Kind: q.Kind.Kind}, q.Name, first(errs)).Status()
	return &admissionv1.AdmissionResponse{Result: &status}, nil
}

// judge decodes both versions of an object. was is nil for one that is
// created.
func judge[T any](ctx context.Context, q *admissionv1.AdmissionRequest, rules func(ctx context.Context, is, was *T) (field.ErrorList, error)) (field.ErrorList, error) {
	is, err := decode[T](q.Object.Raw)
	if err != nil {
		return nil, err
	}
	var was *T
	if q.Operation == admissionv1.Update {
		if was, err = decode[T](q.OldObject.Raw); err != nil {
			return nil, err
		}
	}
	return rules(ctx, is, was)
}

func decode[T any](raw []byte) (*T, error) {
	object := new(T)
	if err := json.Unmarshal(raw, object); err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	return object, nil
}

func (h *Handler) pool(ctx context.Context, is, was *v2beta1.SpiderIPPool) (field.ErrorList, error) {
	if was != nil && equality.Semantic.DeepEqual(is.Spec, was.Spec) {
		return nil, nil
	}
	others, err := h.records.pools(ctx)
	if err != nil {
		return nil, err
	}
	errs := Pool(is, was, others, h.config.Rules)
	if was == nil || len(errs) > 0 {
		return errs, nil
	}
	dropped := Dropped(is, was)
	if empty(dropped) {
		return nil, nil
	}
	users, err := h.records.users(ctx, is.Name, dropped, elsewhere(is.Name, others))
	if err != nil {
		return nil, err
	}
	return inUse(is, users), nil
}

// elsewhere returns what the other pools have.
func elsewhere(pool string, others []v2beta1.SpiderIPPool) *netipx.IPSet {
	return combined(nil, func(b *netipx.IPSetBuilder) {
		for i := range others {
			if addrs, err := others[i].Spec.Addresses(); err == nil && others[i].Name != pool {
				b.AddSet(addrs)
			}
		}
	})
}

func reservedIP(_ context.Context, is, was *v2beta1.SpiderReservedIP) (field.ErrorList, error) {
	return ReservedIP(is, was), nil
}

func (h *Handler) network(ctx context.Context, is, was *v2beta1.SpiderMultusConfig) (field.ErrorList, error) {
	others, err := h.config.CRDs.MultusConfigs(is.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list SpiderMultusConfigs: %w", err)
	}
	definitions := schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}
	definition, err := h.config.Metadata.Resource(definitions).Namespace(is.Namespace).Get(ctx, DefinitionName(is), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), // of this name, or there is no such kind
		apierrors.IsForbidden(err): // agents that render none may not read them
		definition = nil
	case err != nil:
		return nil, fmt.Errorf("read NetworkAttachmentDefinition %s/%s: %w", is.Namespace, DefinitionName(is), err)
	}
	return Network(is, was, others.Items, definition, h.config.Render), nil
}
