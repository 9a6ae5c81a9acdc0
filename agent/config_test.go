package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "conf.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

func TestConfigurationDefaultsWhereTheFileIsSilent(t *testing.T) {
	c, err := load(t, "enableStatefulSet: false\ncoolDown: 1m30s\n")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.EnableStatefulSet, want.CoolDown = false, Duration{90 * time.Second}
	if c != want {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestBadConfigurationIsRefusedByName(t *testing.T) {
	for text, word := range map[string]string{
		"enableIPv4: false\nenableIPv6: false\n": "enableIPv4",
		"statefulSetPoolChange: sometimes\n":     "statefulSetPoolChange",
		"endpoints: none\n":                      "endpoints",
		"coolDown: -1s\n":                        "coolDown",
		"conflictRest: 5s\n":                     "conflictRest",
		"ciliumConfigMap: cilium-config\n":       "kube-system/cilium-config",
		"ciliumConfigMap: a/b/c\n":               "ciliumConfigMap",
		"enableGatewayDetection: 7\n":            "enableGatewayDetection",
		"coolDown: soon\n":                       "duration",
		"holdDown: 10s\n":                        "holdDown",
		"gc: {interval: 0s}\n":                   "gc.interval",
		"gc: {delay: -1s}\n":                     "gc.delay",
		"gc: {zombieOnNotReadyNode: true}\n":     "zombieOnNotReadyNode",
		"enableStatefulSets: false\n":            "enableStatefulSets",
		"{":                                      "conf.yml",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v; want an error that says %s", text, err, word)
		}
	}
}
