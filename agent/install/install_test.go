package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const conf = `{"cniVersion":"1.0.0","name":"holdfast","plugins":[{"type":"ptp","ipam":{"type":"spiderpool"}}]}`

func setUp(t *testing.T, conf string) Options {
	t.Helper()
	dir := t.TempDir()
	o := Options{
		Binary: filepath.Join(dir, "plugin"), BinDir: filepath.Join(dir, "bin"), Names: Plugins(),
		Conf: filepath.Join(dir, "conf"), ConfDir: filepath.Join(dir, "net.d"), ConfName: "10-holdfast.conflist",
	}
	for _, d := range []string{o.BinDir, o.ConfDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, o.Binary, "program")
	write(t, o.Conf, conf)
	return o
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPluginsAndConfigurationAreInstalled(t *testing.T) {
	o := setUp(t, conf)
	// An older version is in place, and is in use: it cannot be written to.
	write(t, filepath.Join(o.BinDir, "spiderpool"), "older")
	for range 2 { // the second time nothing is left to do
		if err := Run(o); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]struct {
		text string
		mode os.FileMode
	}{
		filepath.Join(o.BinDir, "spiderpool"):  {"program", 0o755},
		filepath.Join(o.BinDir, "coordinator"): {"program", 0o755},
		filepath.Join(o.BinDir, "ifacer"):      {"program", 0o755},
		filepath.Join(o.ConfDir, o.ConfName):   {conf, 0o600},
	} {
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want.text {
			t.Errorf("%s holds %q, %v; want %q", path, got, err, want.text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != want.mode {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want.mode)
		}
	}
	for _, dir := range []string{o.BinDir, o.ConfDir} {
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// What an installation leaves on a node, an administrator must be told to
// remove.
func TestReadmeTellsToRemoveEveryPlugin(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Plugins() {
		if !strings.Contains(string(readme), " /opt/cni/bin/"+name+" ") {
			t.Errorf("the README removes no /opt/cni/bin/%s", name)
		}
	}
}

func TestBadConfigurationIsNotInstalled(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no JSON": "{", "no plugins": `{"cniVersion":"1.0.0","name":"x"}`, "no name": `{"plugins":[{"type":"ptp"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			o := setUp(t, text)
			if err := Run(o); err == nil {
				t.Error("it was taken")
			}
			if _, err := os.Stat(filepath.Join(o.ConfDir, o.ConfName)); err == nil {
				t.Error("it is on the node")
			}
		})
	}
}

func TestConfigurationNobodyWantsAnyMoreIsRemoved(t *testing.T) {
	o := setUp(t, conf)
	if err := Run(o); err != nil {
		t.Fatal(err)
	}
	o.Conf = ""
	for range 2 { // the second time it is gone already
		if err := Run(o); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(o.ConfDir, o.ConfName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the configuration is still there: %v", err)
		}
	}
}

func TestMissingDirectoryIsSaid(t *testing.T) {
	o := setUp(t, conf)
	if err := os.Remove(o.BinDir); err != nil {
		t.Fatal(err)
	}
	if err := Run(o); err == nil {
		t.Error("no error")
	}
}
