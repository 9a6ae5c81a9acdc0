// Package testevent writes outcomes as `go test -json` does, so that what is
// checked by programs is counted among the tests.
package testevent

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
)

// Event is a line of `go test -json` (go doc test2json).
type Event struct {
	Action  string
	Package string
	Test    string
	Output  string  `json:",omitempty"`
	Elapsed float64 `json:",omitempty"` // in seconds
}

// Write makes the file anew with the events, and its directory where there is
// none. With an empty name it writes nothing.
func Write(file string, events []Event) error {
	if file == "" {
		return nil
	}
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for _, e := range events {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, lines.Bytes(), 0o644)
}
