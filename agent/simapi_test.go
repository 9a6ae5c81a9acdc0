package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// simObject is an object of the API. What is stored is never changed.
type simObject interface {
	metav1.Object
	runtime.Object
}

// simAPI is an API server in memory: optimistic concurrency, quorum reads,
// selectors, merge patches, and for watches the log of all changes. It does
// what a request says at the moment the request is handed to it; everything
// that goes wrong on the way goes wrong in [simLink].
type simAPI struct {
	mu      sync.Mutex
	version uint64
	uids    int
	kinds   map[string]simKind              // by resource
	objects map[string]map[string]simObject // by resource and key
	changes map[string][]simChange          // by resource
	// texts has what answers say of objects that were asked for.
	texts map[simObject]json.RawMessage
}

// simChange is one change of one object.
type simChange struct {
	version uint64
	key     string
	// is is nil for an object that is gone.
	is simObject
}

func newSimAPI() *simAPI {
	api := &simAPI{
		kinds: simKinds(), objects: map[string]map[string]simObject{}, changes: map[string][]simChange{},
		texts: map[simObject]json.RawMessage{},
	}
	for resource := range api.kinds {
		api.objects[resource] = map[string]simObject{}
	}
	return api
}

// simKind is what the simulation knows of a kind of object.
type simKind struct {
	apiVersion, kind string
	make             func() simObject
}

func simKinds() map[string]simKind {
	spiderpool, holdfast := v2beta1.GroupVersion().String(), v1alpha1.GroupVersion().String()
	return map[string]simKind{
		"pods":              {"v1", "Pod", func() simObject { return &corev1.Pod{} }},
		"nodes":             {"v1", "Node", func() simObject { return &corev1.Node{} }},
		"namespaces":        {"v1", "Namespace", func() simObject { return &metav1.PartialObjectMetadata{} }},
		"statefulsets":      {"apps/v1", "StatefulSet", func() simObject { return &appsv1.StatefulSet{} }},
		"spiderippools":     {spiderpool, "SpiderIPPool", func() simObject { return &v2beta1.SpiderIPPool{} }},
		"spiderreservedips": {spiderpool, "SpiderReservedIP", func() simObject { return &v2beta1.SpiderReservedIP{} }},
		"spiderendpoints":   {spiderpool, "SpiderEndpoint", func() simObject { return &v2beta1.SpiderEndpoint{} }},
		"ipblocks":          {holdfast, "IPBlock", func() simObject { return &v1alpha1.IPBlock{} }},
	}
}

// keyOf is a cache's key of an object: namespace/name, or the name.
func keyOf(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

// put stores an object as it is, whatever its version, and returns it.
func (api *simAPI) put(resource string, o simObject) simObject {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.store(resource, o)
}

// store is put for one who holds the lock.
func (api *simAPI) store(resource string, o simObject) simObject {
	o = o.DeepCopyObject().(simObject)
	k := api.kinds[resource]
	gv, kind := strings.Split(k.apiVersion, "/"), k.kind
	gvk := o.GetObjectKind().GroupVersionKind()
	gvk.Version, gvk.Kind = gv[len(gv)-1], kind
	if len(gv) > 1 {
		gvk.Group = gv[0]
	}
	o.GetObjectKind().SetGroupVersionKind(gvk)
	api.version++
	o.SetResourceVersion(fmt.Sprint(api.version))
	if o.GetUID() == "" {
		api.uids++
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", api.uids)))
	}
	api.objects[resource][keyOf(o)] = o
	api.changes[resource] = append(api.changes[resource], simChange{api.version, keyOf(o), o})
	return o
}

// text is the object as answers have it.
func (api *simAPI) text(o simObject) json.RawMessage {
	text, ok := api.texts[o]
	if !ok {
		var err error
		if text, err = json.Marshal(o); err != nil {
			panic(err)
		}
		api.texts[o] = text
	}
	return text
}

// remove deletes an object. Deleting what is not there is no error.
func (api *simAPI) remove(resource, key string) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.drop(resource, key)
}

func (api *simAPI) drop(resource, key string) {
	if _, ok := api.objects[resource][key]; !ok {
		return
	}
	delete(api.objects[resource], key)
	api.version++
	api.changes[resource] = append(api.changes[resource], simChange{api.version, key, nil})
}

// touch changes nothing of an object but its version, as somebody's label
// would.
func (api *simAPI) touch(resource, key string) {
	api.mu.Lock()
	defer api.mu.Unlock()
	if o, ok := api.objects[resource][key]; ok {
		api.store(resource, o)
	}
}

// since returns what changed of a resource after a version.
func (api *simAPI) since(resource string, version uint64) []simChange {
	api.mu.Lock()
	defer api.mu.Unlock()
	all := api.changes[resource]
	from, _ := slices.BinarySearchFunc(all, version+1, func(c simChange, v uint64) int { return int(c.version) - int(v) })
	return all[from:len(all):len(all)]
}

// now returns the version of the last change.
func (api *simAPI) now() uint64 {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.version
}

// simAll returns the objects of a resource in the order of their keys.
func simAll[T any](api *simAPI, resource string) []T {
	api.mu.Lock()
	defer api.mu.Unlock()
	var all []T
	for _, key := range slices.Sorted(maps.Keys(api.objects[resource])) {
		all = append(all, api.objects[resource][key].(T))
	}
	return all
}

// simGet returns an object, or the zero T.
func simGet[T any](api *simAPI, resource, key string) T {
	api.mu.Lock()
	defer api.mu.Unlock()
	o, _ := api.objects[resource][key].(T)
	return o
}

// simRequest is a request as it came in.
type simRequest struct {
	method, resource, key string
	query                 url.Values
	body                  []byte
}

// parseSimRequest takes a request apart.
func parseSimRequest(r *http.Request, body []byte) simRequest {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	parts = parts[2:] // api/v1
	if strings.HasPrefix(r.URL.Path, "/apis/") {
		parts = parts[1:] // apis/GROUP/VERSION
	}
	namespace := ""
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1]+"/", parts[2:]
	}
	q := simRequest{method: r.Method, resource: parts[0], query: r.URL.Query(), body: body}
	if len(parts) > 1 {
		q.key = namespace + parts[1]
	}
	return q
}

func (q *simRequest) String() string {
	text := q.method + " " + q.resource + " " + q.key + q.query.Encode()
	if len(q.body) > 0 {
		text += " " + string(q.body)
	}
	return text
}

// do does what a request asks for and returns status and body of the answer.
func (api *simAPI) do(q simRequest) (int, any) {
	api.mu.Lock()
	defer api.mu.Unlock()
	was, found := api.objects[q.resource][q.key]
	switch {
	case q.method == http.MethodGet && q.key == "":
		return http.StatusOK, api.list(q)
	case q.method == http.MethodPost:
		return api.create(q)
	case !found:
		return simStatus(http.StatusNotFound, metav1.StatusReasonNotFound, q)
	case q.method == http.MethodGet:
		return http.StatusOK, api.text(was)
	case q.method == http.MethodPatch:
		return api.patch(q, was)
	case q.method == http.MethodDelete:
		return api.delete(q, was)
	}
	return simStatus(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, q)
}

func simStatus(code int32, reason metav1.StatusReason, q simRequest) (int, any) {
	name := q.key[strings.LastIndexByte(q.key, '/')+1:]
	return int(code), &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason, Message: string(reason) + " " + q.resource + " " + q.key,
		Details: &metav1.StatusDetails{Name: name, Kind: q.resource},
	}
}

// list selects by label and, for pods, by spec.nodeName.
func (api *simAPI) list(q simRequest) any {
	byLabel, err := labels.Parse(q.query.Get("labelSelector"))
	if err != nil {
		panic(err)
	}
	byField, err := fields.ParseSelector(q.query.Get("fieldSelector"))
	if err != nil {
		panic(err)
	}
	items := []json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(api.objects[q.resource])) {
		o := api.objects[q.resource][key]
		of := fields.Set{metav1.ObjectNameField: o.GetName()}
		if pod, ok := o.(*corev1.Pod); ok {
			of["spec.nodeName"] = pod.Spec.NodeName
		}
		if byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(of) {
			items = append(items, api.text(o))
		}
	}
	k := api.kinds[q.resource]
	return map[string]any{
		"apiVersion": k.apiVersion, "kind": k.kind + "List",
		"metadata": map[string]string{"resourceVersion": fmt.Sprint(api.version)}, "items": items,
	}
}

func (api *simAPI) create(q simRequest) (int, any) {
	o := api.kinds[q.resource].make()
	if err := json.Unmarshal(q.body, o); err != nil {
		panic(fmt.Errorf("create: %w: %s", err, q.body))
	}
	q.key = keyOf(o)
	if _, exists := api.objects[q.resource][q.key]; exists {
		return simStatus(http.StatusConflict, metav1.StatusReasonAlreadyExists, q)
	}
	return http.StatusCreated, api.text(api.store(q.resource, o))
}

// patch applies a merge patch (RFC 7396) if its version stands. A patch that
// changes nothing leaves the version as it is, as an API server does.
func (api *simAPI) patch(q simRequest, was simObject) (int, any) {
	after, err := jsonpatch.MergePatch(api.text(was), q.body)
	if err != nil {
		panic(fmt.Errorf("patch: %w: %s", err, q.body))
	}
	is := api.kinds[q.resource].make()
	if err := json.Unmarshal(after, is); err != nil {
		panic(fmt.Errorf("patch: %w: %s", err, after))
	}
	if is.GetResourceVersion() != was.GetResourceVersion() {
		return simStatus(http.StatusConflict, metav1.StatusReasonConflict, q)
	}
	if equality.Semantic.DeepEqual(was, is) {
		return http.StatusOK, api.text(was)
	}
	return http.StatusOK, api.text(api.store(q.resource, is))
}

func (api *simAPI) delete(q simRequest, was simObject) (int, any) {
	var o metav1.DeleteOptions
	if err := json.Unmarshal(q.body, &o); err != nil {
		panic(fmt.Errorf("delete: %w: %s", err, q.body))
	}
	if p := o.Preconditions; p != nil && p.ResourceVersion != nil && *p.ResourceVersion != was.GetResourceVersion() {
		return simStatus(http.StatusConflict, metav1.StatusReasonConflict, q)
	}
	api.drop(q.resource, q.key)
	return http.StatusOK, &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess,
	}
}
