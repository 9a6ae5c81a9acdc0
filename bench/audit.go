package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// auditPolicy has every request logged once it is answered, a watch once it
// begins, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

// userPrefix begins the names of the users that systems are.
const userPrefix = "bench:"

// request is a kind of request to the API server.
type request struct {
	// Class says who waits: see the classes.
	Class    string
	Verb     string
	Resource string
}

// The classes of requests.
const (
	// waited: an ADD or DEL waits for the answer.
	waited = "waited"
	// ahead: made for one pod before its ADD.
	ahead = "ahead"
	// background: nothing waits for it.
	background = "background"
)

// tally counts requests.
type tally map[request]int

// since returns what came on top of the tally before.
func (t tally) since(before tally) tally {
	more := tally{}
	for r, n := range t {
		if n -= before[r]; n != 0 {
			more[r] = n
		}
	}
	return more
}

// of returns how many requests are of the class, or of any where it is empty.
func (t tally) of(class string) int {
	n := 0
	for r, made := range t {
		if class == "" || r.Class == class {
			n += made
		}
	}
	return n
}

// changes returns how many requests of the class change something.
func (t tally) changes(class string) int {
	n := 0
	for r, made := range t {
		switch r.Verb {
		case "get", "list", "watch":
		default:
			if r.Class == class {
				n += made
			}
		}
	}
	return n
}

// auditLog is what kube-apiserver wrote of the requests of each user.
type auditLog struct {
	path   string
	offset int64
	// users has the requests by user, without a class.
	users map[string]tally
}

// auditEvent is what this package reads of audit.k8s.io/v1 Event.
type auditEvent struct {
	Stage            string `json:"stage"`
	Verb             string `json:"verb"`
	ImpersonatedUser struct {
		Username string `json:"username"`
	} `json:"impersonatedUser"`
	ObjectRef *struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
	} `json:"objectRef"`
}

// read takes in what was written since.
func (a *auditLog) read() error {
	file, err := os.Open(a.path)
	if err != nil {
		return fmt.Errorf("the API server's audit log: %w", err)
	}
	defer file.Close()
	if _, err := file.Seek(a.offset, io.SeekStart); err != nil {
		return err
	}
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // a line without its end is read the next time
		}
		if err != nil {
			return err
		}
		a.offset += int64(len(line))
		var e auditEvent
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("line of the audit log: %w", err)
		}
		a.count(&e)
	}
}

func (a *auditLog) count(e *auditEvent) {
	user, ok := strings.CutPrefix(e.ImpersonatedUser.Username, userPrefix)
	if !ok || (e.Verb == "watch") != (e.Stage == "ResponseStarted") {
		return
	}
	resource := "other"
	if e.ObjectRef != nil {
		resource = e.ObjectRef.Resource
		if e.ObjectRef.Subresource != "" {
			resource += "/" + e.ObjectRef.Subresource
		}
	}
	if a.users[user] == nil {
		a.users[user] = tally{}
	}
	a.users[user][request{Verb: e.Verb, Resource: resource}]++
}

// total returns how many requests all systems' users have made.
func (a *auditLog) total() int {
	n := 0
	for _, t := range a.users {
		n += t.of("")
	}
	return n
}
