package crds

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"github.com/holdfast-ipam/holdfast/crds/holdfast/v1alpha1"
	"github.com/holdfast-ipam/holdfast/crds/spiderpool/v2beta1"
)

// The typed client of each kind, with every verb but apply.
type (
	IPPools       = gentype.ClientWithList[*v2beta1.SpiderIPPool, *v2beta1.SpiderIPPoolList]
	Endpoints     = gentype.ClientWithList[*v2beta1.SpiderEndpoint, *v2beta1.SpiderEndpointList]
	ReservedIPs   = gentype.ClientWithList[*v2beta1.SpiderReservedIP, *v2beta1.SpiderReservedIPList]
	MultusConfigs = gentype.ClientWithList[*v2beta1.SpiderMultusConfig, *v2beta1.SpiderMultusConfigList]
	Coordinators  = gentype.ClientWithList[*v2beta1.SpiderCoordinator, *v2beta1.SpiderCoordinatorList]
	IPBlocks      = gentype.ClientWithList[*v1alpha1.IPBlock, *v1alpha1.IPBlockList]
)

// Clients makes typed clients for every kind of this project.
type Clients struct {
	spiderpool rest.Interface
	holdfast   rest.Interface
	parameters runtime.ParameterCodec
}

// NewClients returns clients that talk to the API server of config through
// httpClient, which several sets of clients can share (rest.HTTPClientFor
// makes one). Limits of config on requests per second hold for each of the
// two API groups by itself.
func NewClients(config *rest.Config, httpClient *http.Client) (*Clients, error) {
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme)
	group := func(gv schema.GroupVersion) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.APIPath = "/apis"
		c.GroupVersion = &gv
		c.NegotiatedSerializer = codecs.WithoutConversion()
		// Custom resources speak JSON only; config may prefer protobuf.
		c.ContentType = runtime.ContentTypeJSON
		c.AcceptContentTypes = runtime.ContentTypeJSON
		client, err := rest.RESTClientForConfigAndClient(c, httpClient)
		if err != nil {
			return nil, fmt.Errorf("make a client for %s: %w", gv, err)
		}
		return client, nil
	}
	spiderpool, err := group(v2beta1.GroupVersion())
	if err != nil {
		return nil, err
	}
	holdfast, err := group(v1alpha1.GroupVersion())
	if err != nil {
		return nil, err
	}
	return &Clients{spiderpool: spiderpool, holdfast: holdfast, parameters: runtime.NewParameterCodec(scheme)}, nil
}

// AddToScheme makes the scheme know every kind of this project.
func AddToScheme(scheme *runtime.Scheme) error {
	if err := v2beta1.AddToScheme(scheme); err != nil {
		return err
	}
	return v1alpha1.AddToScheme(scheme)
}

// IPPools returns the client for SpiderIPPool.
func (c *Clients) IPPools() *IPPools {
	return gentype.NewClientWithList("spiderippools", c.spiderpool, c.parameters, "",
		func() *v2beta1.SpiderIPPool { return new(v2beta1.SpiderIPPool) },
		func() *v2beta1.SpiderIPPoolList { return new(v2beta1.SpiderIPPoolList) })
}

// Endpoints returns the client for SpiderEndpoint in a namespace, or in all
// if it is empty.
func (c *Clients) Endpoints(namespace string) *Endpoints {
	return gentype.NewClientWithList("spiderendpoints", c.spiderpool, c.parameters, namespace,
		func() *v2beta1.SpiderEndpoint { return new(v2beta1.SpiderEndpoint) },
		func() *v2beta1.SpiderEndpointList { return new(v2beta1.SpiderEndpointList) })
}

// ReservedIPs returns the client for SpiderReservedIP.
func (c *Clients) ReservedIPs() *ReservedIPs {
	return gentype.NewClientWithList("spiderreservedips", c.spiderpool, c.parameters, "",
		func() *v2beta1.SpiderReservedIP { return new(v2beta1.SpiderReservedIP) },
		func() *v2beta1.SpiderReservedIPList { return new(v2beta1.SpiderReservedIPList) })
}

// MultusConfigs returns the client for SpiderMultusConfig in a namespace, or
// in all if it is empty.
func (c *Clients) MultusConfigs(namespace string) *MultusConfigs {
	return gentype.NewClientWithList("spidermultusconfigs", c.spiderpool, c.parameters, namespace,
		func() *v2beta1.SpiderMultusConfig { return new(v2beta1.SpiderMultusConfig) },
		func() *v2beta1.SpiderMultusConfigList { return new(v2beta1.SpiderMultusConfigList) })
}

// Coordinators returns the client for SpiderCoordinator.
func (c *Clients) Coordinators() *Coordinators {
	return gentype.NewClientWithList("spidercoordinators", c.spiderpool, c.parameters, "",
		func() *v2beta1.SpiderCoordinator { return new(v2beta1.SpiderCoordinator) },
		func() *v2beta1.SpiderCoordinatorList { return new(v2beta1.SpiderCoordinatorList) })
}

// IPBlocks returns the client for IPBlock.
func (c *Clients) IPBlocks() *IPBlocks {
	return gentype.NewClientWithList("ipblocks", c.holdfast, c.parameters, "",
		func() *v1alpha1.IPBlock { return new(v1alpha1.IPBlock) },
		func() *v1alpha1.IPBlockList { return new(v1alpha1.IPBlockList) })
}
