// Package apitest starts a real etcd and a real kube-apiserver for tests, with
// the kinds of this project installed. There is no kubelet, no scheduler and
// no controller: what a test creates stays as it is until the test changes it.
package apitest
