// Package crds holds the API of this project: clients for its kinds, and
// their definitions for the API server. The kinds are in the packages below;
// from them generate.sh makes the deepcopy functions and the files in yaml/.
package crds

import "embed"

//go:generate ./generate.sh

// YAML returns the CustomResourceDefinitions, one file for each kind, in the
// directory yaml.
func YAML() embed.FS { return files }

// embed only fills package variables. Nothing writes this one.
//
//go:embed yaml/*.yaml
var files embed.FS
