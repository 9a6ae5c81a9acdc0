package selection

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrNoRule says that nobody names a pool for the interface.
var ErrNoRule = errors.New("no pool selection rules: name a pool in the pod's annotation " + PoolAnnotation +
	", in the namespace's annotation " + NamespaceIPv4Annotation + " or in the network's configuration (default_ipv4_ippool), or set spec.default of a SpiderIPPool")

// InputError says that something a user wrote makes no sense.
type InputError struct {
	// Where is what the user has to correct, such as "annotation
	// ipam.spidernet.io/ippool of the pod".
	Where string
	// Reason is what is wrong with it and what is expected instead.
	Reason string
}

// Error begins with "wrong input", which is what users look for.
func (e *InputError) Error() string { return "wrong input: " + e.Where + ": " + e.Reason }

// RefusedError says that of the pools named for an IP version none fits.
type RefusedError struct {
	// Version is the IP version, 4 or 6.
	Version int64
	// From tells who named the pools.
	From string
	// Refused has each of them with the reason.
	Refused []Refusal
}

// Refusal is why a pool that was named was not chosen.
type Refusal struct {
	Pool string
	// Reason goes on from the pool's name: "is disabled (spec.disable)".
	Reason string
}

// told is how many refusals a message has at most: a wildcard may stand for
// thousands of pools, and each try of a pod tells them again.
const told = 50

// Error names the pools with their reasons, and then says what to do.
func (e *RefusedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no IPv%d pool fits, of those named by %s", e.Version, e.From)
	if len(e.Refused) > 0 {
		b.WriteString(": " + Reasons(e.Refused))
	}
	b.WriteString(": correct what is in the way, or name a pool that fits")
	return b.String()
}

// Reasons tells of each refusal, "pool a is disabled; pool b ...", up to a
// number that people read.
func Reasons(refused []Refusal) string {
	var each []string
	for _, r := range refused[:min(len(refused), told)] {
		each = append(each, "pool "+r.Pool+" "+r.Reason)
	}
	if more := len(refused) - told; more > 0 {
		each = append(each, fmt.Sprintf("and %d more pools", more))
	}
	return strings.Join(each, "; ")
}

// longestName is that of an object of Kubernetes (RFC 1123).
const longestName = 253

// quoted returns a name as the user wrote it, cut off where it is longer than
// any can be.
func quoted(name string) string {
	if len(name) > longestName {
		return strconv.Quote(name[:longestName]) + "..."
	}
	return strconv.Quote(name)
}
