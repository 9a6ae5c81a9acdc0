// Package install puts the CNI plugins and a configuration list where a
// node's container runtime looks for them.
package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
)

// Options say what goes where.
type Options struct {
	// Binary is the plugin binary. It is copied into BinDir under each of
	// Names, because a plugin knows its role by its name.
	Binary string
	BinDir string
	Names  []string
	// Conf, if set, is a CNI configuration list that is copied into ConfDir
	// as ConfName. Without it, one that an earlier installation put there is
	// removed: a runtime takes whatever it finds.
	Conf     string
	ConfDir  string
	ConfName string
}

// Plugins are the names that the plugin binary has a role for (command
// holdfast-cni): the types that network configurations name.
func Plugins() []string { return []string{"spiderpool", "coordinator", "ifacer"} }

// Run installs. Each file is replaced in one step, so a runtime that looks
// meanwhile finds the old one or the new one, and a file that is the same
// already is left alone. The configuration comes last: with it the node is
// ready.
func Run(o Options) error {
	binary, err := os.ReadFile(o.Binary)
	if err != nil {
		return fmt.Errorf("read the plugin: %w", err)
	}
	for _, name := range o.Names {
		if err := replace(filepath.Join(o.BinDir, name), binary, 0o755); err != nil {
			return err
		}
	}
	switch {
	case o.ConfDir == "":
		return nil
	case o.Conf == "":
		return remove(filepath.Join(o.ConfDir, o.ConfName))
	}
	conf, err := os.ReadFile(o.Conf)
	if err != nil {
		return fmt.Errorf("read the configuration list: %w", err)
	}
	if err := validate(conf); err != nil {
		return fmt.Errorf("configuration list %s: %w", o.Conf, err)
	}
	return replace(filepath.Join(o.ConfDir, o.ConfName), conf, 0o600)
}

// validate refuses what a runtime would stumble over on every pod start.
func validate(conf []byte) error {
	if !json.Valid(conf) {
		return errors.New("it is no JSON")
	}
	list, err := libcni.NetworkConfFromBytes(conf)
	if err == nil && len(list.Plugins) == 0 {
		err = errors.New("it has no plugins")
	}
	return err
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the configuration list of an earlier installation: %w", err)
	}
	return nil
}

// replace makes path hold content: written beside it, synced, renamed.
func replace(path string, content []byte, mode os.FileMode) (err error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return os.Chmod(path, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("install %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("install %s: %w", path, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
