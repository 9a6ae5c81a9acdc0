package agent

import (
	"fmt"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Config is the file conf.yml of the ConfigMap, read once at start. Its keys
// are Spiderpool's where Spiderpool has one for the thing.
type Config struct {
	// EnableIPv4 and EnableIPv6 switch a family off for the whole cluster.
	EnableIPv4 bool `json:"enableIPv4"`
	EnableIPv6 bool `json:"enableIPv6"`
	// EnableStatefulSet keeps the addresses of StatefulSets' pods. Without
	// it they are treated as stateless.
	EnableStatefulSet bool `json:"enableStatefulSet"`
	// EnableKubevirtStaticIP keeps the addresses of KubeVirt's virtual machines,
	// by the name of their VirtualMachineInstance.
	EnableKubevirtStaticIP bool `json:"enableKubevirtStaticIP"`
	// StatefulSetPoolChange says what a restarted StatefulSet pod gets whose
	// pools were changed meanwhile: "keep", its old address, or "switch", one
	// of the new pools.
	StatefulSetPoolChange string `json:"statefulSetPoolChange"`
	// ClusterNetwork is namespace/name of the network of pods that name none.
	ClusterNetwork string `json:"clusterNetwork"`
	// EnableIPConflictDetection has the plugin find out, before a pod gets an
	// address, whether somebody else uses it, and EnableGatewayDetection
	// whether its gateway is there.
	EnableIPConflictDetection bool `json:"enableIPConflictDetection"`
	EnableGatewayDetection    bool `json:"enableGatewayDetection"`
	// ConflictRest is for how long no pod gets an address that was found in
	// use.
	ConflictRest Duration `json:"conflictRest"`
	// CoolDown is how long an address rests between two pods.
	CoolDown Duration `json:"coolDown"`
	// HoldDown is how long a node is gone before its leases are given away.
	// An agent cut off from the API server for half of it begins no new
	// assignments.
	HoldDown Duration `json:"holdDown"`
	// Endpoints is "all", or "statefulset" to write no SpiderEndpoint for
	// other pods.
	Endpoints string `json:"endpoints"`
	// CiliumConfigMap is namespace/name of Cilium's ConfigMap, which tells the
	// networks of its pods.
	CiliumConfigMap string `json:"ciliumConfigMap"`
	// GC says how what is left over is taken back.
	GC GC `json:"gc"`
}

// GC is when addresses come back that nobody gave back.
type GC struct {
	// Interval is how often the elected agent looks at everything without an
	// event that would tell it to.
	Interval Duration `json:"interval"`
	// ZombieOnReadyNode takes addresses of a stateless pod back although no
	// DEL came, once its kubelet has reported that every container has ended
	// and the pod's grace period has passed. A sandbox that is left answers
	// for the address all the same.
	ZombieOnReadyNode bool `json:"zombieOnReadyNode"`
	// Delay is waited beyond a pod's grace period, here and for a pod that was
	// deleted by force.
	Delay Duration `json:"delay"`
}

// Duration is a time.Duration written as in "5s".
type Duration struct{ time.Duration }

// UnmarshalText parses a duration (time.ParseDuration).
func (d *Duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// The values of the settings that have names.
const (
	poolChangeKeep   = "keep"
	poolChangeSwitch = "switch"

	endpointsAll         = "all"
	endpointsStatefulSet = "statefulset"
)

// minInterval is the shortest time between two looks at everything: each costs
// a look into the caches for every block and endpoint of the cluster.
const minInterval = 10 * time.Second

// minConflictRest is longer than an ADD with all its moves from one address to
// another.
const minConflictRest = time.Minute

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{
		EnableIPv4: true, EnableIPv6: true, EnableStatefulSet: true, EnableKubevirtStaticIP: true,
		StatefulSetPoolChange: poolChangeKeep,
		ConflictRest:          Duration{10 * time.Minute},
		CoolDown:              Duration{5 * time.Second},
		HoldDown:              Duration{5 * time.Minute},
		Endpoints:             endpointsAll,
		CiliumConfigMap:       "kube-system/cilium-config",
		GC:                    GC{Interval: Duration{10 * time.Minute}},
	}
}

// LoadConfig reads the file at path; an empty path gives the defaults. A key
// it does not know or a value that makes no sense is an error.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	if path == "" {
		return c, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read the configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	if err := c.validate(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c *Config) validate() error {
	switch {
	case !c.EnableIPv4 && !c.EnableIPv6:
		return fmt.Errorf("enableIPv4 and enableIPv6 are both false: switch one on")
	case c.StatefulSetPoolChange != poolChangeKeep && c.StatefulSetPoolChange != poolChangeSwitch:
		return fmt.Errorf("statefulSetPoolChange is %q: want %q or %q", c.StatefulSetPoolChange, poolChangeKeep, poolChangeSwitch)
	case c.Endpoints != endpointsAll && c.Endpoints != endpointsStatefulSet:
		return fmt.Errorf("endpoints is %q: want %q or %q", c.Endpoints, endpointsAll, endpointsStatefulSet)
	case strings.Count(c.CiliumConfigMap, "/") != 1 || strings.HasPrefix(c.CiliumConfigMap, "/") || strings.HasSuffix(c.CiliumConfigMap, "/"):
		return fmt.Errorf("ciliumConfigMap is %q: want namespace/name, like kube-system/cilium-config", c.CiliumConfigMap)
	case c.ConflictRest.Duration < minConflictRest:
		return fmt.Errorf("conflictRest is %s: want at least %s, or a pod comes back to the address it has just left", c.ConflictRest, minConflictRest)
	case c.CoolDown.Duration < 0:
		return fmt.Errorf("coolDown is %s: it cannot be negative", c.CoolDown)
	case c.GC.Interval.Duration < minInterval:
		return fmt.Errorf("gc.interval is %s: want at least %s", c.GC.Interval, minInterval)
	case c.GC.Delay.Duration < 0:
		return fmt.Errorf("gc.delay is %s: it cannot be negative", c.GC.Delay)
	case c.HoldDown.Duration < time.Minute:
		return fmt.Errorf("holdDown is %s: want at least 1m, or a busy API server looks like a lost one", c.HoldDown)
	}
	return nil
}
