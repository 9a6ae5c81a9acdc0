// Package agents runs real agents against a real API server, without a
// cluster around them: pods are objects, and the test plays the runtime. It
// holds the agent to the design's cost table and to what it promises while
// the API server is away, after crashes, and when a journal or a Node is lost.
package agents
