// Package e2e holds the scenarios that only a cluster shows. They need the
// build tag e2e and the cluster of `make kind-up`:
//
//	go test -tags e2e ./e2e/ -v
//
// Every scenario has its own namespace and its own pools, none of which
// overlap with another scenario's, and ends with the invariant checker (package
// checker), once while its pods run and once more when they are gone. The
// scenarios run one after the other, because they stop agents, nodes and the
// API server.
//
//	main_test.go         installs the product, runs, prints the summary
//	scenario_test.go     what a scenario begins and ends with
//	workload_test.go     the objects that scenarios are made of
//	*_test.go            the scenarios, each named as the claim it checks
package e2e
