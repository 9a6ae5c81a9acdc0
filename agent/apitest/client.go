package apitest

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/holdfast-ipam/holdfast/crds"
)

// Clients returns a superuser's clients, which share their connections.
func (s *Server) Clients() (*kubernetes.Clientset, *crds.Clients, error) {
	config := s.Config()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, nil, err
	}
	kube, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		return nil, nil, err
	}
	kinds, err := crds.NewClients(config, client)
	return kube, kinds, err
}

// WriteKubeconfig writes to path how a program that runs in a namespace talks
// to the server of a config as somebody; the zero ImpersonationConfig is whom
// the config is of. The file has its token, and the server's name is not checked.
func WriteKubeconfig(config *rest.Config, path, namespace string, as rest.ImpersonationConfig) error {
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: config.Host, InsecureSkipTLSVerify: true}},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": {
			Token: config.BearerToken, Impersonate: as.UserName, ImpersonateGroups: as.Groups,
		}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u", Namespace: namespace}},
		CurrentContext: "x",
	}, path)
}
